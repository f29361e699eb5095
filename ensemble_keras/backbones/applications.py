"""Applications: the classifiers of `keras.applications`, one table row each."""

import typing

import keras


class Application(typing.NamedTuple):
    """One classifier of `keras.applications`.

    Attributes:
        name: String. The function's name in `keras.applications`.
        module: String. Its module there, which holds its `preprocess_input`.
        preprocessing: String or `None`. The kind of preprocessing, see `preprocess`; `None`: it rescales inside.
        default_size: Int. Side of the images that the ImageNet weights were trained on, in pixels.
    """

    name: str
    module: str
    preprocessing: str | None
    default_size: int

    @property
    def builder(self):
        """The function of `keras.applications` that builds the network."""
        return getattr(keras.applications, self.name)

    @property
    def smallest(self):
        """Int. The smallest side that Keras builds the network for, in pixels."""
        return _SMALLEST.get(self.module, 32)


_SMALLEST = {"xception": 71, "inception_v3": 75, "inception_resnet_v2": 75}

APPLICATIONS = (
    Application("Xception", "xception", "tf", 299),
    Application("VGG16", "vgg16", "caffe", 224),
    Application("VGG19", "vgg19", "caffe", 224),
    Application("ResNet50", "resnet", "caffe", 224),
    Application("ResNet101", "resnet", "caffe", 224),
    Application("ResNet152", "resnet", "caffe", 224),
    Application("ResNet50V2", "resnet_v2", "tf", 224),
    Application("ResNet101V2", "resnet_v2", "tf", 224),
    Application("ResNet152V2", "resnet_v2", "tf", 224),
    Application("InceptionV3", "inception_v3", "tf", 299),
    Application("InceptionResNetV2", "inception_resnet_v2", "tf", 299),
    Application("MobileNet", "mobilenet", "tf", 224),
    Application("MobileNetV2", "mobilenet_v2", "tf", 224),
    Application("MobileNetV3Small", "mobilenet_v3", None, 224),
    Application("MobileNetV3Large", "mobilenet_v3", None, 224),
    Application("DenseNet121", "densenet", "torch", 224),
    Application("DenseNet169", "densenet", "torch", 224),
    Application("DenseNet201", "densenet", "torch", 224),
    Application("NASNetMobile", "nasnet", "tf", 224),
    Application("NASNetLarge", "nasnet", "tf", 331),
    Application("EfficientNetB0", "efficientnet", None, 224),
    Application("EfficientNetB1", "efficientnet", None, 240),
    Application("EfficientNetB2", "efficientnet", None, 260),
    Application("EfficientNetB3", "efficientnet", None, 300),
    Application("EfficientNetB4", "efficientnet", None, 380),
    Application("EfficientNetB5", "efficientnet", None, 456),
    Application("EfficientNetB6", "efficientnet", None, 528),
    Application("EfficientNetB7", "efficientnet", None, 600),
    Application("EfficientNetV2B0", "efficientnet_v2", None, 224),
    Application("EfficientNetV2B1", "efficientnet_v2", None, 240),
    Application("EfficientNetV2B2", "efficientnet_v2", None, 260),
    Application("EfficientNetV2B3", "efficientnet_v2", None, 300),
    Application("EfficientNetV2S", "efficientnet_v2", None, 384),
    Application("EfficientNetV2M", "efficientnet_v2", None, 480),
    Application("EfficientNetV2L", "efficientnet_v2", None, 480),
    Application("ConvNeXtTiny", "convnext", None, 224),
    Application("ConvNeXtSmall", "convnext", None, 224),
    Application("ConvNeXtBase", "convnext", None, 224),
    Application("ConvNeXtLarge", "convnext", None, 224),
    Application("ConvNeXtXLarge", "convnext", None, 224),
)
