"""RandAugment: Keras' layer, with a range of its own for each operation."""

import keras


class RandAugment(keras.layers.RandAugment):
    """Two operations, drawn anew for each batch, of shear, shift, rotation, brightness, colour, contrast and so on.

    Keras hands one factor to all operations: at 0.3 pictures are turned by up to 108 degrees, one way only, and keep
    as little as 1 bit of each value. Here it is the magnitude of the paper (Cubuk et al., 2020), as a share of its
    ranges: 30 degrees either way, shears and shifts by .3, 4 bits less.

    Args:
        factor: Float in [0, 1], the magnitude. Defaults to 0.5.
        **kwargs: As in `keras.layers.RandAugment`.
    """

    def __init__(self, factor=0.5, **kwargs):
        super().__init__(factor=factor, **kwargs)
        m = self.factor[1]
        # A shear is turned around for half of the images.
        self.random_shear.x_factor = self.random_shear.y_factor = (0.0, 0.3 * m)
        shift = self.random_translation
        shift.height_lower = shift.width_lower = -0.3 * m
        shift.height_upper = shift.width_upper = 0.3 * m
        self.random_rotation.factor = (-30 / 360 * m, 30 / 360 * m)
        self.random_brightness.factor = (-0.3 * m, 0.3 * m)
        self.random_color_degeneration.factor = (0.0, 0.9 * m)
        self.random_contrast.factor = (0.6 * m, 0.6 * m)
        # 0.5 leaves an image as it is.
        self.random_sharpness.factor = (0.5 - 0.45 * m, 0.5 + 0.45 * m)
        self.random_posterization.factor = (8 - round(4 * m), 8)
        # Values above a threshold from anywhere in the range are inverted: Keras knows no lower end for it.
        self.solarization.addition_factor, self.solarization.threshold_factor = (0.0, 0.0), (0.0, 1.0)
