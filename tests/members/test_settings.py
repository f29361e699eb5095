import pytest

import ensemble_keras as ek


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unfreeze": 0}, "`unfreeze` must be"),
        ({"unfreeze": True}, "`unfreeze` must be"),
        ({"layer_decay": 0}, "`layer_decay` must be in"),
        ({"label_smoothing": 1}, "`label_smoothing` must be in"),
        ({"global_clipnorm": 0}, "`global_clipnorm` must be above 0"),
        ({"ema_momentum": 1}, "`ema_momentum` must be between"),
        ({"warmup_epochs": 5}, "`warmup_epochs` must be from 0"),
        ({"optimizer": "adamww"}, "Unknown optimizer 'adamww'. Did you mean 'adamw'"),
        ({"optimizer": 3}, "`optimizer` must be a name or"),
        ({"loss": "mse"}, "`loss` must be one of"),
        ({"monitor": "f1"}, "`monitor` must be one of"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ek.FineTuning(**options)
