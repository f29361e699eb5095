import pytest

from ensemble_keras.members.tuning_space import HEAD_SPACE, TRAINING_SPACE, keras_tuner_space, search_space


def test_the_defaults_are_valid_themselves():
    assert search_space(HEAD_SPACE, end_to_end=False) == search_space(None, end_to_end=False) == HEAD_SPACE
    assert search_space(TRAINING_SPACE, end_to_end=True) == search_space({}, end_to_end=True) == TRAINING_SPACE


def test_what_is_given_replaces_the_default_in_the_type_of_the_hyperparameter():
    given = {"learning_rate": [1, 0.1, 1.0], "batch_size": (16, 32.0), "dropout": (0, 0)}
    space = search_space(given, end_to_end=False)
    assert space == {**HEAD_SPACE, "learning_rate": [1.0, 0.1], "batch_size": (16, 32), "dropout": [0.0]}
    assert [type(value) for value in (*space["learning_rate"], *space["batch_size"])] == [float, float, int, int]


def test_a_linear_head_has_no_units():
    assert "units" not in search_space({"head": ["linear"]}, end_to_end=False)


def test_end_to_end_training_takes_further_settings():
    given = {
        "optimizer": ["adamw", "sgd"],
        "label_smoothing": (0, 0.2),
        "epochs": [5],
        "augmentation": [None, "flip"],
    }
    space = search_space(given, end_to_end=True)
    assert space["optimizer"] == ["adamw", "sgd"]
    assert space["augmentation"] == ["none", "flip"]
    assert space["label_smoothing"] == (0.0, 0.2)


def test_keras_tuner_knows_the_whole_space_and_its_conditions():
    declared = keras_tuner_space(search_space({"dropout": [0.5]}, end_to_end=False))
    kinds = {hp.name: type(hp).__name__ for hp in declared.space}
    assert kinds == {
        "head": "Choice",
        "units": "Choice",
        "epochs": "Int",
        "batch_size": "Choice",
        "learning_rate": "Float",
        "weight_decay": "Float",
        "dropout": "Fixed",
    }
    assert "units" not in declared.values
    sampling = {hp.name: hp.sampling for hp in declared.space if hasattr(hp, "sampling")}
    assert sampling == {"epochs": "log", "learning_rate": "log", "weight_decay": "log"}


def test_a_strength_is_searched_where_the_augmentation_has_one():
    given = {"augmentation": ["none", "light", "flip", "zoom(strength=0.5)", "cifar"]}
    declared = {hp.name: hp for hp in keras_tuner_space(search_space(given, end_to_end=True)).space}
    strength = declared["augmentation_strength"]
    assert (strength.min_value, strength.max_value) == TRAINING_SPACE["augmentation_strength"]
    assert [(condition.name, condition.values) for condition in strength.conditions] == [
        ("augmentation", ["light", "cifar"])
    ]
    for without in (["none"], ["flip", "light(strength=0.5)"]):
        assert "augmentation_strength" not in search_space({"augmentation": without}, end_to_end=True)


@pytest.mark.parametrize(
    ("given", "end_to_end", "message"),
    [
        (
            {"learning_rat": [1]},
            False,
            r"Unknown hyperparameter 'learning_rat'\. Did you mean 'learning_rate'\? What",
        ),
        ({"head": ["linear"]}, True, r"Unknown hyperparameter 'head'.*tuned here: learning_rate, weight_decay"),
        ({"augmentation": ["light"]}, False, "Unknown hyperparameter 'augmentation'"),
        ({"epochs": 5}, False, r"must be a list of choices or a pair \(low, high\)\. Received: 5"),
        ({"epochs": []}, False, "must be a list of choices"),
        ({"epochs": (5, 6, 7)}, False, r"A tuple for 'epochs' must be \(low, high\), of numbers"),
        ({"epochs": (9, 2)}, False, r"must be \(low, high\).*Received: \(9, 2\)"),
        ({"head": ("linear", "mlp")}, False, r"A tuple for 'head' must be \(low, high\); choices go into a list"),
        ({"weight_decay": (0, 1)}, False, r"logarithmic scale, so its range must begin above 0.*Give 0 as one of"),
        ({"epochs": [2.5]}, False, "`epochs` must be an int. Received: 2.5"),
        ({"epochs": ["many"]}, False, "`epochs` must be a number. Received: 'many'"),
        ({"epochs": [0]}, False, "`epochs` must be at least 1"),
        ({"units": [0]}, False, "`units` must be at least 1"),
        ({"dropout": [1.0]}, False, r"`dropout` must be in \[0, 1\)"),
        ({"learning_rate": [-1]}, False, "`learning_rate` must be above 0"),
        ({"head": ["cubic"]}, False, "`head` must be one of 'linear', 'mlp'"),
        ({"units": [8], "head": ["linear"]}, False, "`units` belong to head='mlp'"),
        ({"augmentation": ["lihgt"]}, True, r"Unknown augmentation 'lihgt'\. Did you mean 'light'\?"),
        ({"augmentation": [["flip"]]}, True, r"`augmentation` must be given by name. Received: \['flip'\]"),
        ({"optimizer": ["adamww"]}, True, r"Unknown optimizer 'adamww'\. Did you mean 'adamw'\?"),
        ({"augmentation_strength": (0, 1)}, True, "strength of an augmentation must be above 0, at most 2"),
        (
            {"augmentation_strength": [1], "augmentation": ["flip"]},
            True,
            r"flips and CutMix have none. Received: augmentation=\['flip'\]",
        ),
        ({"loss": ["square"]}, True, "`loss` must be one of 'crossentropy', 'focal'"),
        ({"label_smoothing": (0, 1)}, True, r"`label_smoothing` must be in \[0, 1\)"),
    ],
)
def test_what_cannot_be_is_refused(given, end_to_end, message):
    with pytest.raises(ValueError, match=message):
        search_space(given, end_to_end=end_to_end)
