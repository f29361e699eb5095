"""Terminal: what a person at a shell sees of warnings and of the start of the backend."""

import contextlib
import logging
import os
import re
import sys
import tempfile
import warnings

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_NOTICE = re.compile(r"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} \d\d:\d\d:\d+\.\d+ ")


@contextlib.contextmanager
def short_warnings():
    """Shows warnings as one line, without the line of source code, while the block runs."""

    def show(message, category, filename, lineno, file=None, line=None):
        print(f"warning: {message}", file=sys.stderr if file is None else file)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def without_retracing_warnings():
    """Holds back TensorFlow's advice against tracing often while the block runs: every model is traced once."""

    def is_other(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


@contextlib.contextmanager
def quiet_start():
    """Holds back the notices that TensorFlow writes while it is loaded in the block; all else is passed on after it.

    No setting silences them: they are written before the log is set up. Whoever sets `TF_CPP_MIN_LOG_LEVEL` sees
    what they ask for.
    """
    if _LOG_LEVEL in os.environ:
        yield
        return
    # On a machine without a GPU, level 2 still shows an error about CUDA.
    os.environ[_LOG_LEVEL] = "3"
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            written = held.read().decode(errors="replace").splitlines(keepends=True)
            os.write(2, "".join(line for line in written if not _NOTICE.match(line)).encode())
