import keras
import pytest
from contracts import check_backbone

from ensemble_keras.backbones.alexnet import alexnet
from ensemble_keras.backbones.registry import build_backbone


def test_it_has_the_papers_convolutions():
    model = alexnet()
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in layers] == [96, 256, 384, 384, 256]
    assert [layer.kernel_size[0] for layer in layers] == [11, 5, 3, 3, 3]
    assert [layer.strides[0] for layer in layers] == [4, 1, 1, 1, 1]
    # One tower, weights and biases: 34,944 + 614,656 + 885,120 + 1,327,488 + 884,992; and two batch norms.
    assert model.count_params() == 3_747_200 + 4 * (96 + 256)


@pytest.mark.parametrize(("side", "expected"), [(227, 8), (224, 7), (32, 1), (16, 1)])
def test_small_images_work(side, expected):
    assert alexnet((side, side, 3), width=0.125).output_shape == (None, expected, expected, 32)


def test_alexnet_passes_the_contract(tmp_path):
    model = build_backbone("AlexNet(width=0.25)", input_shape=(32, 32, 3), weights=None)
    check_backbone(model, (32, 32, 3), directory=tmp_path)
