import keras
import numpy as np
import pytest
from contracts import check_backbone

from ensemble_keras.backbones.darknet import darknet19, darknet53
from ensemble_keras.backbones.registry import build_backbone


def convolutions(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def test_darknet19_is_the_papers_table():
    model = darknet19()
    # YOLO9000, table 6, from top to bottom, without the classifier's convolution.
    filters = [32, 64, 128, 64, 128, 256, 128, 256, 512, 256, 512, 256, 512, 1024, 512, 1024, 512, 1024]
    kernels = [3, 3, 3, 1, 3, 3, 1, 3, 3, 1, 3, 1, 3, 3, 1, 3, 1, 3]
    assert [layer.filters for layer in convolutions(model)] == filters
    assert [layer.kernel_size[0] for layer in convolutions(model)] == kernels
    before = [3, *filters[:-1]]
    weights = sum(k * k * a * b for k, a, b in zip(kernels, before, filters, strict=True))
    assert model.count_params() == weights + 4 * sum(filters)
    assert 19.7e6 < weights < 19.9e6
    # The output column of the table, for 224 pixels.
    assert [layer.output.shape[1] for layer in convolutions(model)] == [224, 112] + 3 * [56] + 3 * [28] + 5 * [
        14
    ] + 5 * [7]


def test_darknet53_is_the_papers_table():
    model = darknet53()
    assert len(convolutions(model)) == 52
    assert model.count_params() == 40_620_640
    assert [layer.output.shape[1:] for layer in convolutions(model) if layer.strides == (2, 2)] == [
        (128, 128, 64),
        (64, 64, 128),
        (32, 32, 256),
        (16, 16, 512),
        (8, 8, 1024),
    ]
    assert sum(isinstance(layer, keras.layers.Add) for layer in model.layers) == 1 + 2 + 8 + 8 + 4
    assert {layer.negative_slope for layer in model.layers if isinstance(layer, keras.layers.LeakyReLU)} == {0.1}


@pytest.mark.slow
def test_a_strided_convolution_pads_both_sides(rng):
    # Darknet's own rule, with the kernel's first tap on the padding: out[i] starts at pixel 2 i - 1.
    model = darknet53((4, 4, 3), width=1 / 32)
    down = keras.Model(model.input, model.get_layer("stage1_down").output)
    stem = keras.Model(model.input, model.get_layer("stem_leaky").output)
    x = rng.uniform(size=(1, 4, 4, 3)).astype("float32")
    padded = np.pad(stem.predict(x, verbose=0), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = keras.ops.convert_to_numpy(model.get_layer("stage1_down").kernel)
    windows = [
        [np.tensordot(padded[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel, 3) for j in (0, 1)] for i in (0, 1)
    ]
    np.testing.assert_allclose(down.predict(x, verbose=0)[0], windows, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("builder", "side"), [(darknet19, 8), (darknet19, 28), (darknet53, 8), (darknet53, 45)])
def test_sides_that_are_no_multiple_of_32_are_rounded_up(builder, side):
    assert builder((side, side, 3), width=1 / 32).output_shape == (None, -(-side // 32), -(-side // 32), 32)


@pytest.mark.parametrize(
    "backbone", ["Darknet19(width=0.125)", pytest.param("Darknet53(width=0.0625)", marks=pytest.mark.slow)]
)
def test_darknets_pass_the_contract(backbone, tmp_path):
    check_backbone(build_backbone(backbone, input_shape=(32, 32, 3), weights=None), (32, 32, 3), directory=tmp_path)
