import numpy as np
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
        ({"epochs": 1.5}, "`epochs` must be at least 1, an int. Received: 1.5"),
        ({"epochs": True}, "`epochs` must be at least 1, an int. Received: True"),
        ({"batch_size": "16"}, "`batch_size` must be at least 1, an int. Received: '16'"),
        ({"patience": None}, "`patience` must be at least 1, an int. Received: None"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be above 0. Received: nan"),
        ({"learning_rate": "0.1"}, "`learning_rate` must be above 0. Received: '0.1'"),
        ({"weight_decay": float("inf")}, "`weight_decay` must be at least 0. Received: inf"),
        ({"weight_decay": -1}, "`weight_decay` must be at least 0. Received: -1"),
        ({"validation_split": 1}, "`validation_split` must be between 0 and 1"),
        ({"mixed_precision": "bf16"}, "`mixed_precision` must be one of None, True, False"),
        ({"jit_compile": "yes"}, "`jit_compile` must be one of 'auto'"),
        ({"train_batch_norm": "no"}, "`train_batch_norm` must be one of True, False"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ek.FineTuning(**options)


def test_numbers_of_numpy_are_numbers():
    settings = ek.Training(epochs=np.int64(3), learning_rate=np.float32(0.1), ema_momentum=np.float64(0.9))
    assert settings.epochs == 3
