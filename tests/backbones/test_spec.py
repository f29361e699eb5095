import pytest

from ensemble_keras.backbones.spec import BackboneSpec, layer_name, read_spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("VGG16", ("VGG16", {})),
        (" VGG16 ", ("VGG16", {})),
        ("VGG16()", ("VGG16", {})),
        ("my-net.v2", ("my-net.v2", {})),
        ("MobileNetV2(alpha=0.35)", ("MobileNetV2", {"alpha": 0.35})),
        ("CNN (filters=(8, 16), dropout=.2)", ("CNN", {"filters": (8, 16), "dropout": 0.2})),
        ("X(weights=None, path='a)b', n=-1)", ("X", {"weights": None, "path": "a)b", "n": -1})),
    ],
)
def test_a_name_and_literal_options_are_read(text, expected):
    assert read_spec(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "X(",
        "X)",
        "X Y",
        "X(0.35)",
        "X(alpha=)",
        "X(alpha=0.35",
        "X(a=1, a=2)",
        "X(**{'a': 1})",
        "X(a=1)(b=2)",
        "X(a=1)+f(b=2)",
        "X(alpha=1/2)",
        "X(a=__import__('os').getcwd())",
    ],
)
def test_other_text_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"such as 'MobileNetV2\(alpha=0.35\)'\. Received: "):
        read_spec(text)


def test_equal_options_have_one_label():
    assert BackboneSpec("CNN", {"filters": (8,), "dropout": 0.5}).label == "CNN(dropout=0.5, filters=(8,))"
    assert BackboneSpec("CNN", {"dropout": 0.5, "filters": (8,)}).label == "CNN(dropout=0.5, filters=(8,))"
    assert BackboneSpec("CNN", {}).label == "CNN"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("MobileNetV2(alpha=0.35)", "MobileNetV2_alpha_0_35"),
        ("CNN(filters=(8, 16))", "CNN_filters_8_16"),
        ("a/b:c", "a_b_c"),
        ("VGG16", "VGG16"),
        ("()", "backbone"),
    ],
)
def test_a_layer_name_is_made_of_letters_digits_and_underscores(label, expected):
    assert layer_name(label) == expected
