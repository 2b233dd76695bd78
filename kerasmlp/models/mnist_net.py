import keras

from kerasmlp.layers.initializers import spread_seed
from kerasmlp.utils.checks import check_int, check_seed

_CONVOLUTIONS = ((32, 1), (64, 2), (128, 1), (64, 2), (32, 1))  # filters, stride


def MNISTNet(
    *, num_classes: int = 10, seed: int | None = None, name: str = "mnist_net"
) -> keras.Model:
    """Builds LayerOut's network for MNIST: five convolutions without pooling, two dense layers.

    All convolutions are 3×3 without padding, ReLU follows every layer but the
    last, kernels start by Xavier's rule.

    Args:
        num_classes: Size of the softmax head.
        seed: Integer or None, of the initial weights.
        name: Of the model.

    Returns:
        A `keras.Model` with input `image` of shape `(batch, 32, 32, 1)` and
        output `(batch, num_classes)`, float32 probabilities.

    Raises:
        InputError: if an argument is out of range.

    Example:

    >>> MNISTNet().count_params()
    491114

    Reference: Goutam et al., "LayerOut: Freezing Layers in Deep Neural Networks",
    2020, section 5.1 and figure 2.
    """
    num_classes = check_int("num_classes", num_classes, minimum=2)
    seeds = iter(spread_seed(check_seed(seed), len(_CONVOLUTIONS) + 2))

    def xavier():
        return keras.initializers.GlorotNormal(seed=next(seeds))

    inputs = x = keras.Input((32, 32, 1), name="image")
    for number, (filters, stride) in enumerate(_CONVOLUTIONS):
        x = keras.layers.Conv2D(
            filters,
            3,
            strides=stride,
            activation="relu",
            kernel_initializer=xavier(),
            name=f"conv_{number}",
        )(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(1024, "relu", kernel_initializer=xavier(), name="dense_0")(x)
    x = keras.layers.Dense(num_classes, kernel_initializer=xavier(), name="logits")(x)
    x = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, x, name=name)
