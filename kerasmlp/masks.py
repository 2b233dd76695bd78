"""Dropout masks from a counter and a hash: as random as dropout needs, at a fraction of the cost.

Keras draws a 32-bit float per unit from a generator made for simulation; on a
CPU that is a quarter of a training step of a small MLP. A multiply-xorshift
hash of (seed, step, position) fuses with its neighbours under XLA.
`tests/test_masks.py` holds it to frequencies, independence and period;
`tests/benchmarks/training.py` measures what it saves.
"""

from __future__ import annotations

import keras
from keras import ops


def _signed(word: int) -> int:
    """The int32 with the same bits: every backend multiplies int32 with wrap-around."""
    return word - (1 << 32) if word >= 1 << 31 else word


def _shift_xor(x, bits: int):
    # int32 shifts drag the sign along: the mask makes the shift logical.
    return ops.bitwise_xor(x, ops.bitwise_and(ops.right_shift(x, bits), (1 << (32 - bits)) - 1))


def _hash(x):
    """A bijection of 32 bits with almost no bias (Ellis' improved constants of Wellons' search)."""
    x = _shift_xor(x, 16) * _signed(0x21F0AAAD)
    x = _shift_xor(x, 15) * _signed(0xD35A2D97)
    return _shift_xor(x, 15)


def keep_mask(shape, rate: float, seed):
    """Returns a boolean tensor, True with probability `1 - rate` (to within 2^-32).

    Args:
        shape: Of the mask; may hold symbolic sizes.
        rate: Probability of False, in [0, 1).
        seed: Integer tensor of shape `(2,)`, such as `SeedGenerator.next()` gives.

    Example:

    >>> mask = keep_mask((4, 1000), 0.25, np.array([7, 0]))
    >>> bool(abs(np.mean(mask) - 0.75) < 0.03)
    True
    """
    size = 1
    for n in shape:
        size = size * n
    words = ops.cast(seed, "int32")
    position = ops.arange(size, dtype="int32")
    stream = _hash(_hash(words[0]) + words[1])
    bits = _hash(ops.bitwise_xor(_hash(position * _signed(0x9E3779B9) + stream), stream))
    threshold = min(round(rate * (1 << 32)), (1 << 32) - 1) - (1 << 31)
    return ops.reshape(bits >= threshold, shape)


def dropout(inputs, rate: float, seed_generator: keras.random.SeedGenerator):
    """Sets units to zero with probability `rate` and scales the others by `1 / (1 - rate)`."""
    mask = keep_mask(ops.shape(inputs), rate, seed_generator.next())
    scale = ops.cast(1.0 / (1.0 - rate), inputs.dtype)
    return ops.where(mask, inputs * scale, ops.zeros((), inputs.dtype))
