import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from ensemble_keras.evaluation.overlays import overlay, plot_explanations


@pytest.fixture
def pictures(rng):
    return rng.integers(0, 256, (3, 6, 8, 3), dtype="uint8")


@pytest.fixture
def maps(rng):
    return rng.uniform(0, 1, (3, 6, 8)).astype("float32")


def test_an_overlay_mixes_in_the_maps_colour_as_strongly_as_the_map_is(pictures, maps):
    strength = maps / maps.max(axis=(1, 2), keepdims=True)
    colors = 255 * matplotlib.colormaps["magma"](strength)[..., :3]
    share = 0.7 * strength[..., None]
    found = overlay(pictures, maps, alpha=0.7, colormap="magma")
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, pictures * (1 - share) + colors * share, atol=0.51)


def test_where_nothing_speaks_for_the_class_the_image_stays_as_it_is(pictures, maps):
    np.testing.assert_array_equal(overlay(pictures, np.zeros_like(maps)), pictures)
    np.testing.assert_array_equal(overlay(pictures, -maps), pictures)
    np.testing.assert_array_equal(overlay(pictures, maps, alpha=0), pictures)


def test_only_proportions_within_a_map_count(pictures, maps):
    np.testing.assert_array_equal(overlay(pictures, 1e-3 * maps), overlay(pictures, maps))


def test_a_coarse_map_is_brought_to_the_images_size_the_right_way_up(pictures):
    maps = np.zeros((3, 3, 4))
    maps[:, 0, 3] = 1
    changed = (overlay(np.zeros_like(pictures), maps, alpha=1.0) > 0).any(axis=-1)
    assert changed[:, 0, 7].all()
    assert not changed[:, 3:].any()
    assert not changed[:, :, :4].any()


def test_grey_images_of_one_channel_are_taken(pictures, maps):
    grey = pictures[..., :1]
    np.testing.assert_array_equal(overlay(grey, maps), overlay(np.repeat(grey, 3, axis=-1), maps))


def test_images_and_their_maps_are_drawn_side_by_side(pictures, maps):
    axes = plot_explanations(pictures, {"Grad-CAM": maps, "occlusion": -maps}, titles=["one", "$two", "three"])
    assert axes.shape == (3, 3)
    assert [ax.get_title() for ax in axes[0]] == ["one", "Grad-CAM", "occlusion"]
    assert [ax.get_title() for ax in axes[1]] == ["$two", "", ""]
    for row, image in enumerate(pictures):
        np.testing.assert_array_equal(axes[row, 0].images[0].get_array(), image)
        np.testing.assert_array_equal(axes[row, 1].images[0].get_array(), overlay(pictures, maps)[row])
        np.testing.assert_array_equal(axes[row, 2].images[0].get_array(), image)
    assert axes[0, 0].figure._repr_png_().startswith(b"\x89PNG")


def test_axes_of_the_users_own_are_drawn_on(pictures, maps):
    own = Figure().subplots(3, 2)
    axes = plot_explanations(pictures, maps, axes=own)
    assert axes.shape == (3, 2)
    assert axes[2, 1] is own[2, 1]
    assert plot_explanations(pictures[:1], maps[:1], axes=Figure().subplots(1, 2)).shape == (1, 2)


def test_what_does_not_fit_is_refused(pictures, maps):
    with pytest.raises(ValueError, match=r"`alpha` must be in \[0, 1\]. Received: 2"):
        overlay(pictures, maps, alpha=2)
    with pytest.raises(ValueError, match=r"shape \(n, h, w\), for 3 images. Received: shape \(2, 6, 8\)"):
        overlay(pictures, maps[:2])
    with pytest.raises(ValueError, match="with NaN or infinities"):
        overlay(pictures, maps * np.nan)
    with pytest.raises(ValueError, match="`titles` must hold one per image. Received: 1 for 3 images"):
        plot_explanations(pictures, maps, titles=["one"])
    with pytest.raises(ValueError, match=r"`axes` must be an array of shape \(3, 2\). Received: shape \(2, 2\)"):
        plot_explanations(pictures, maps, axes=Figure().subplots(2, 2))
