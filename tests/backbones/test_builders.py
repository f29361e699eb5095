import keras
import pytest

from ensemble_keras.backbones.builders import call_builder, check_options

SHAPE = (8, 9, 3)


def model(**_):
    return keras.Sequential([keras.Input(SHAPE)])


def called_with(signature):
    """Calls a builder of this signature; returns what it received."""
    received = {}
    namespace = {"received": received, "model": model}
    exec(f"def build({signature}):\n    received.update(locals())\n    return model()", namespace)
    call_builder(namespace["build"], input_shape=SHAPE, weights="imagenet", options={}, label="X")
    return received


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("", {}),
        ("input_shape", {"input_shape": SHAPE}),
        ("shape", {"shape": SHAPE}),
        ("shape, /", {"shape": SHAPE}),
        ("input_shape, /", {"input_shape": SHAPE}),
        ("*, input_shape", {"input_shape": SHAPE}),
        ("width=2", {"width": 2}),
        ("weights", {"weights": "imagenet"}),
        ("shape, weights=None", {"shape": SHAPE, "weights": "imagenet"}),
        ("weights=None, *, input_shape=None", {"weights": "imagenet", "input_shape": SHAPE}),
        ("**options", {"options": {"input_shape": SHAPE, "weights": "imagenet"}}),
        ("shape, **options", {"shape": SHAPE, "options": {"weights": "imagenet"}}),
        (
            "input_shape=None, include_top=True, weights=None, pooling='avg'",
            {"input_shape": SHAPE, "include_top": False, "weights": "imagenet", "pooling": None},
        ),
    ],
)
def test_a_builder_gets_what_its_signature_takes(signature, expected):
    assert called_with(signature) == expected


def test_options_reach_the_builder():
    received = []

    def build(input_shape, width, depth=1):
        received.append((input_shape, width, depth))
        return model()

    call_builder(build, input_shape=SHAPE, weights=None, options={"width": 3}, label="X")
    assert received == [(SHAPE, 3, 1)]


def test_a_builder_that_returns_no_model_is_named():
    with pytest.raises(TypeError, match=r"The builder of X must return a keras.Model. Received: int"):
        call_builder(lambda: 3, input_shape=SHAPE, weights=None, options={}, label="X")


def test_options_of_the_wrong_kind_are_named():
    def build(input_shape, filters=(2,)):
        return [int(width) for width in filters] and {}[filters]

    for filters, what in ((3, "TypeError: 'int' object is not iterable"), ((3,), r"KeyError: \(3,\)")):
        message = rf"X cannot be built with these options, \{{'filters': .*\}}: {what}"
        with pytest.raises(ValueError, match=message):
            call_builder(build, input_shape=SHAPE, weights=None, options={"filters": filters}, label="X")
    with pytest.raises(KeyError):
        call_builder(build, input_shape=SHAPE, weights=None, options={}, label="X")


def test_an_unknown_option_is_refused_with_those_that_are_taken():
    def build(shape, alpha=1.0, *, depth=2, include_top=True, name=None):
        return model()

    check_options(build, {"alpha": 1, "depth": 3, "weights": None}, "X")
    for option in ("beta", "shape", "include_top", "name", "input_shape"):
        with pytest.raises(
            ValueError,
            match=rf"X takes the options weights, resize_to, interpolation, alpha, depth. Received: '{option}'",
        ):
            check_options(build, {option: 1}, "X")


def test_a_misspelt_option_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"Received: 'alpa'. Did you mean 'alpha'\?"):
        check_options(lambda input_shape, alpha=1.0: model(), {"alpa": 1}, "X")


def test_an_open_ended_builder_takes_any_option_but_ours():
    check_options(model, {"anything": 1}, "X")
    with pytest.raises(ValueError, match="Received: 'pooling'"):
        check_options(model, {"pooling": "max"}, "X")
