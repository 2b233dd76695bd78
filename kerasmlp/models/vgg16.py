import keras

from kerasmlp.layers.batch_norm import BatchNorm
from kerasmlp.layers.initializers import spread_seed
from kerasmlp.utils.checks import check_int, check_seed

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # filters, convolutions


def VGG16(*, num_classes: int = 10, seed: int | None = None, name: str = "vgg16") -> keras.Model:
    """Builds VGG-16 for 32×32 images: 13 convolutions with batch norm, three dense layers.

    After each of five stages max pooling halves the sides, until one pixel of
    512 channels is left for the dense layers 512 → 4096 → 4096 → classes. Kernels
    start by He's rule; momentum and epsilon of batch norm are PyTorch's.

    Args:
        num_classes: Size of the softmax head.
        seed: Integer or None, of the initial weights.
        name: Of the model.

    Returns:
        A `keras.Model` with input `image` of shape `(batch, 32, 32, 3)` and
        output `(batch, num_classes)`, float32 probabilities.

    Raises:
        InputError: if an argument is out of range.

    Example:

    >>> model = VGG16()
    >>> sum(int(np.prod(w.shape)) for w in model.trainable_weights)  # "about 33.64 million"
    33646666

    Reference: Goutam et al., "LayerOut: Freezing Layers in Deep Neural Networks",
    2020, section 5.2; Simonyan and Zisserman, 2014.
    Deviation: ReLU follows the first two dense layers, as in VGG-16; the original's
    code has none between the three.
    """
    num_classes = check_int("num_classes", num_classes, minimum=2)
    seeds = iter(spread_seed(check_seed(seed), 16))

    def he():
        return keras.initializers.HeNormal(seed=next(seeds))

    inputs = x = keras.Input((32, 32, 3), name="image")
    for stage, (filters, convolutions) in enumerate(_STAGES):
        for number in range(convolutions):
            x = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                kernel_initializer=he(),
                name=f"conv_{stage}_{number}",
            )(x)
            x = BatchNorm(momentum=0.9, epsilon=1e-5, name=f"norm_{stage}_{number}")(x)
            x = keras.layers.Activation("relu", name=f"relu_{stage}_{number}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool_{stage}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for number in range(2):
        x = keras.layers.Dense(4096, "relu", kernel_initializer=he(), name=f"dense_{number}")(x)
    x = keras.layers.Dense(num_classes, kernel_initializer=he(), name="logits")(x)
    x = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, x, name=name)
