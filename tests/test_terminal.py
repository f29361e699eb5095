import logging

import pytest

from ensemble_keras._terminal import without_retracing_warnings


@pytest.mark.parametrize(
    ("message", "shown"), [("5 calls triggered tf.function retracing. Ten lines.", False), ("other", True)]
)
def test_only_the_retracing_warning_is_held_back_and_only_in_the_block(caplog, message, shown):
    logger = logging.getLogger("tensorflow")
    with without_retracing_warnings():
        logger.warning(message)
    assert (message in caplog.messages) == shown
    logger.warning(message)
    assert caplog.messages.count(message) == 1 + shown
