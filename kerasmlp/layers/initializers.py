"""Initialisers of the original, expressed in Keras, and the seeds of sublayers."""

import keras
import numpy as np

from kerasmlp.layers.member_dense import MemberDense
from kerasmlp.utils.checks import check_seed, reject

Seed = int | list[int] | None
"""Of a layer; a list has that of each member."""


def check_seeds(seed: Seed, members: int) -> Seed:
    """A seed, or one for each of several members; of one number a member has `seed + m`."""
    if members == 1 or seed is None:
        return check_seed(seed)
    if not isinstance(seed, list | tuple):
        if check_seed(seed) + members > 1 << 31:
            reject("seed", f"must be at most {(1 << 31) - members} with {members} members", seed)
        seed = [seed + m for m in range(members)]
    if len(seed) != members:
        reject("seed", f"must be one, or one for each of {members} members", seed)
    return [check_seed(each) for each in seed]


def spread_seed(seed: Seed, count: int) -> list:
    """Returns `count` independent 31-bit seeds that follow from one (or Nones from None).

    Of a list of seeds, those of members, each of the `count` is a list.

    Example:

    >>> spread_seed(7, 2) == spread_seed(7, 3)[:2]
    True
    >>> [one for one, other in spread_seed([7, 8], 2)] == spread_seed(7, 2)
    True
    """
    if isinstance(seed, list):
        return [list(each) for each in zip(*(spread_seed(s, count) for s in seed), strict=True)]
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


def dense(
    units: int, identifier: str, fan_in: int, seed: Seed, *, members: int = 1, **kwargs
) -> keras.layers.Layer:
    """A dense layer with `fan_in` inputs, of each of several members if there are some.

    `"fan_in_uniform"` also draws the bias, as the original does; with any of
    Keras' own initialisers the bias starts at zero.
    """
    if members == 1:
        return keras.layers.Dense(units, **_initializers(identifier, fan_in, seed), **kwargs)
    seeds = seed if isinstance(seed, list) else [seed] * members
    each = [_initializers(identifier, fan_in, s) for s in seeds]
    drawn = {name: [one[name] for one in each] for name in each[0]}
    return MemberDense(units, members=members, **drawn, **kwargs)


def _initializers(identifier: str, fan_in: int, seed: int | None) -> dict:
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
