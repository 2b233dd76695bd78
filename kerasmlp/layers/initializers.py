"""Initialisers of the original, expressed in Keras, and the seeds of sublayers."""

import keras
import numpy as np

from kerasmlp.utils.checks import reject


def spread_seed(seed: int | None, count: int) -> list[int | None]:
    """Returns `count` independent 31-bit seeds that follow from one (or Nones from None).

    Example:

    >>> spread_seed(7, 2) == spread_seed(7, 3)[:2]
    True
    """
    if seed is None:
        return [None] * count
    return [int(s >> 1) for s in np.random.SeedSequence(seed).generate_state(count)]


def check_initializer(identifier: str) -> str:
    """Returns `identifier` if it is `"fan_in_uniform"` or a name that Keras knows."""
    try:
        if not isinstance(identifier, str):
            raise ValueError
        if identifier != "fan_in_uniform":
            keras.initializers.get(identifier)
    except ValueError:
        names = "must be 'fan_in_uniform' or the name of one of Keras' initialisers"
        reject("kernel_initializer", names, identifier)
    return identifier


def dense_initializers(identifier: str, fan_in: int, seed: int | None) -> dict:
    """Returns the initialiser arguments of a Dense layer with `fan_in` inputs.

    `"fan_in_uniform"` also draws the bias, as the original does; with any of
    Keras' own initialisers the bias starts at zero.
    """
    kernel_seed, bias_seed = spread_seed(seed, 2)
    if identifier == "fan_in_uniform":
        return {
            "kernel_initializer": FanInUniform(seed=kernel_seed),
            "bias_initializer": FanInUniform(fan_in, seed=bias_seed),
        }
    initializer = keras.initializers.get(identifier)
    config = initializer.get_config()
    if "seed" in config:
        initializer = initializer.__class__.from_config({**config, "seed": kernel_seed})
    return {"kernel_initializer": initializer, "bias_initializer": "zeros"}


@keras.saving.register_keras_serializable("kerasmlp")
class FanInUniform(keras.initializers.Initializer):
    """Uniform in ±1/sqrt(fan_in), for kernels and for biases.

    PyTorch's `Linear` starts like this. For a kernel it equals
    `VarianceScaling(1/3, "fan_in", "uniform")`; a bias does not know the
    width of its layer's input, so `fan_in` can be given.

    Args:
        fan_in: Number of inputs of the layer, or None to take the first
            dimension of the shape (right for a Dense kernel).
        seed: Integer, `SeedGenerator` or None.

    Raises:
        ValueError: if a bias is asked for without `fan_in`.

    Example:

    >>> kernel = FanInUniform(seed=0)((100, 50))
    >>> bool(abs(keras.ops.convert_to_numpy(kernel)).max() <= 0.1)
    True

    Reference: the paper says He uniform, its code starts from this; ours
    follows the code.
    """

    def __init__(self, fan_in: int | None = None, seed: int | None = None):
        self.fan_in = fan_in
        self.seed = seed

    def __call__(self, shape, dtype=None):
        if self.fan_in is None and len(shape) < 2:
            reject("fan_in", "must be given for a bias", self.fan_in)
        bound = (self.fan_in or shape[0]) ** -0.5
        return keras.random.uniform(shape, -bound, bound, dtype=dtype, seed=self.seed)

    def get_config(self):
        return {"fan_in": self.fan_in, "seed": self.seed}
