import keras

from kerasmlp.models.resnet_builder import ResNetBuilder
from kerasmlp.utils.checks import check_int

_GROUPS = ((64, 3), (128, 4), (256, 6), (512, 3))  # filters, units


def ICResNet50(
    *,
    arrangement: str = "relu-ic-conv",
    num_classes: int = 1000,
    dropout_rate: float = 0.05,
    seed: int | None = None,
    dtype: str | keras.DTypePolicy | None = None,
    name: str = "ic_resnet50",
) -> keras.Model:
    """Builds ResNet-50 for images of 224×224 pixels with IC layers.

    A 7×7 convolution of stride 2, max pooling, four groups of 3, 4, 6 and 3
    bottleneck units; all else as in `ICResNet`, the baseline with bottlenecks too.
    The model takes pixels as they are, 0 to 255, and brings them to [-1, 1].

    Args:
        arrangement: As in `ICResNet`; the paper takes the default.
        num_classes: Size of the softmax head.
        dropout_rate: Of all IC layers; the paper tries 0.05 and 0.1.
        seed: Integer or None, of initial weights and dropout masks.
        dtype: Policy of the layers, such as `"mixed_bfloat16"`.
        name: Of the model.

    Returns:
        A `keras.Model` with input `image` of shape `(batch, 224, 224, 3)` and
        output `(batch, num_classes)`, float32 probabilities.

    Raises:
        InputError: if an argument is out of range.

    Example: a folder of photographs with one folder per class inside trains it by
    `model.fit(keras.utils.image_dataset_from_directory(folder, image_size=(224, 224)))`.

    >>> model = ICResNet50()
    >>> sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    25549352

    Reference: Chen et al., "Rethinking the Usage of Batch Normalization and
    Dropout in the Training of Deep Neural Networks", 2019, section 4.3.
    Deviation: the paper prints 6 units of 128 channels and 4 of 256; ResNet-50 has 4
    and 6. The 1×1 skip connections have no batch norm (7,680 parameters), so that
    all arrangements are of one size. The paper subtracts a mean per pixel.
    """
    num_classes = check_int("num_classes", num_classes, minimum=2)
    parts = ResNetBuilder(
        depth=50,
        arrangement=arrangement,
        bottleneck=True,
        dropout_rate=dropout_rate,
        seed=seed,
        dtype=dtype,
    )
    inputs = keras.Input((224, 224, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, dtype=dtype, name="rescaling")(inputs)
    x = parts.stem(x, 64, 7, stride=2, pool=True)
    x = parts.groups(x, _GROUPS)
    return keras.Model(inputs, parts.head(x, num_classes), name=name)
