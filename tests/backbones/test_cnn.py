import keras
import pytest
from contracts import check_backbone

from ensemble_keras.backbones.cnn import cnn
from ensemble_keras.backbones.registry import build_backbone


def test_it_is_blocks_of_convolution_relu_and_pooling():
    model = cnn((20, 24, 3), filters=(4, 6), dropout=0.25)
    assert [type(layer).__name__ for layer in model.layers[1:]] == ["Conv2D", "MaxPooling2D", "Dropout"] * 2
    assert model.count_params() == (9 * 3 * 4 + 4) + (9 * 4 * 6 + 6)
    assert model.output_shape == (None, 5, 6, 6)
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.25, 0.25]


def test_its_defaults_are_three_blocks_without_dropout():
    assert cnn().output_shape == (None, 8, 8, 128)
    assert cnn().count_params() == 93_248
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in cnn().layers)


def test_odd_and_tiny_sides_are_rounded_up():
    assert cnn((7, 1, 3)).output_shape == (None, 1, 1, 128)


@pytest.mark.parametrize("filters", [(), 32, None])
def test_filters_must_name_at_least_one_block(filters):
    with pytest.raises(ValueError, match=r"`filters` must hold one number per block, such as \(32, 64\)"):
        cnn(filters=filters)


def test_the_cnn_passes_the_contract(tmp_path):
    model = build_backbone("CNN(filters=(8, 8), dropout=0.5)", input_shape=(16, 20, 3), weights=None)
    check_backbone(model, (16, 20, 3), directory=tmp_path)
