import keras

from kerasmlp.models.arrangements import units_per_group
from kerasmlp.models.resnet_builder import ResNetBuilder
from kerasmlp.utils.checks import check_int

_FILTERS = (16, 32, 64)  # of the three groups


def ICResNet(
    *,
    depth: int = 20,
    bottleneck: bool = False,
    arrangement: str = "relu-ic-conv",
    num_classes: int = 10,
    channels: int = 3,
    dropout_rate: float = 0.05,
    seed: int | None = None,
    dtype: str | keras.DTypePolicy | None = None,
    name: str = "ic_resnet",
) -> keras.Model:
    """Builds a ResNet for CIFAR with IC layers: batch norm and dropout before each convolution.

    A 3×3 convolution, three groups of n units with 16, 32 and 64 channels on
    32², 16² and 8² pixels, the mean over all pixels, a dense layer. A unit adds
    to its input what its convolutions make of it:

    | `arrangement` | a unit, k = 2, or 3 with `bottleneck` | before the mean |
    | --- | --- | --- |
    | `"relu-ic-conv"` | k × {ReLU, IC, convolution} | ReLU, IC |
    | `"ic-conv-relu"` | k × {IC, convolution, ReLU} | IC |
    | `"conv-relu-ic"` | k × {convolution, ReLU, IC} | |
    | `"baseline"` | k × {convolution, norm, ReLU}, the last ReLU after the sum | |
    | the same with `bottleneck` | k × {norm, ReLU, convolution} | norm, ReLU |

    All have the same number of parameters, and with the same seed the same initial
    kernels. Training, prediction and sampling do what `ICLayer` says; the
    baseline has no dropout. The outputs are float32 under every dtype policy.

    Args:
        depth: Number of convolutions and the dense layer: 6n + 2, or 9n + 2
            with `bottleneck`. The paper has 110 and 164.
        bottleneck: Units of 1×1, 3×3 and 1×1 convolutions with four times the
            channels outside, and not of two 3×3.
        arrangement: As above.
        num_classes: Size of the softmax head.
        channels: Of the images.
        dropout_rate: Of all IC layers, in [0, 1).
        seed: Integer or None, of initial weights and dropout masks.
        dtype: Policy of the layers, such as `"mixed_bfloat16"`; Keras' global
            one by default.
        name: Of the model.

    Returns:
        A `keras.Model` with input `image` of shape `(batch, 32, 32, channels)`
        and output `(batch, num_classes)`, float32 probabilities.

    Raises:
        InputError: if an argument is out of range or there is no such depth.

    Example:

    >>> for arrangement in ("relu-ic-conv", "baseline"):
    ...     model = ICResNet(depth=20, arrangement=arrangement)
    ...     print(sum(int(np.prod(w.shape)) for w in model.trainable_weights))
    272282
    272282

    Reference: Chen et al., "Rethinking the Usage of Batch Normalization and
    Dropout in the Training of Deep Neural Networks", 2019, sections 4.1 and 4.2;
    He et al. 2016a (baseline) and 2016b (baseline with bottlenecks).
    Deviation: where a unit changes the shape, a 1×1 convolution of what its first
    convolution takes is the skip connection, as in He et al. 2016b; on CIFAR He
    et al. 2016a fill up with zeros. The paper leaves open what follows the first
    convolution: here what follows those of a unit, which makes the numbers of
    parameters equal, as it says they are.
    """
    units = units_per_group(depth, bottleneck)
    num_classes = check_int("num_classes", num_classes, minimum=2)
    channels = check_int("channels", channels, minimum=1)
    parts = ResNetBuilder(
        depth=depth,
        arrangement=arrangement,
        bottleneck=bottleneck,
        dropout_rate=dropout_rate,
        seed=seed,
        dtype=dtype,
    )
    inputs = keras.Input((32, 32, channels), name="image")
    x = parts.stem(inputs, _FILTERS[0], 3)
    x = parts.groups(x, [(filters, units) for filters in _FILTERS])
    return keras.Model(inputs, parts.head(x, num_classes), name=name)
