"""Dropout masks from a counter and a hash: as random as dropout needs, at a fraction of the cost.

Keras draws a 32-bit float per unit from a generator made for simulation; on a
CPU that is a quarter of a training step of a small MLP. A multiply-xorshift
hash of (seed, step, position) fuses with its neighbours under XLA.
`tests/layers/test_masks.py` holds it to frequencies, independence and period;
`tests/benchmarks/training.py` measures what it saves.
"""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kerasmlp.layers.bfloat16 import bfloat16_product

_GOLDEN = 0x9E3779B9
_HIGH_KEY = 0x3C6EF372  # so that the two keys of a small seed differ


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
    bits = _hash(ops.bitwise_xor(_hash(position * _signed(_GOLDEN) + stream), stream))
    return ops.reshape(bits >= _threshold(rate), shape)


def member_mask(rows, columns: int, rate: float, seeds):
    """As `keep_mask` of each member's own columns, side by side, `(rows, columns)`.

    Args:
        rows: Of the mask.
        columns: Of all members.
        rate: Probability of False, in [0, 1).
        seeds: Integer tensor `(members, 2)`.

    Example:

    >>> seeds, each = np.array([[7, 0], [3, 0]]), [(5, 4), 0.5]
    >>> expected = np.concatenate([keep_mask(*each, s) for s in seeds], axis=1)
    >>> bool((np.array(member_mask(5, 8, 0.5, seeds)) == expected).all())
    True
    """
    words = ops.cast(seeds, "int32")
    members = words.shape[0]
    width = columns // members
    position = ops.reshape(ops.arange(rows * width, dtype="int32"), (-1, 1, width))
    stream = _hash(_hash(words[:, :1]) + words[:, 1:])
    bits = _hash(ops.bitwise_xor(_hash(position * _signed(_GOLDEN) + stream), stream))
    return ops.reshape(bits >= _threshold(rate), (-1, columns))


def _threshold(rate: float) -> int:
    """A uniform int32 is below it with probability `rate`."""
    return min(round(rate * (1 << 32)), (1 << 32) - 1) - (1 << 31)


def dropout(inputs, rate: float, seed_generator: keras.random.SeedGenerator):
    """Sets units to zero with probability `rate` and scales the others by `1 / (1 - rate)`."""
    if len(inputs.shape) > 2:
        # XLA is slow at convolutions: without it each step of the hash passes over the map
        # anew, and Keras' generator takes half the time.
        mask = keras.random.uniform(ops.shape(inputs), seed=seed_generator) >= rate
    else:
        mask = keep_mask(ops.shape(inputs), rate, seed_generator.next())
    return _masked(inputs, mask, rate)


def member_dropout(inputs, rate: float, seed_generators: Sequence[keras.random.SeedGenerator]):
    """As `dropout` of each member's own columns `(batch, columns)` by a generator of its own."""
    seeds = ops.stack([ops.cast(each.next(), "int32") for each in seed_generators])
    mask = member_mask(ops.shape(inputs)[0], inputs.shape[-1], rate, seeds)
    return _masked(inputs, mask, rate)


def _masked(inputs, mask, rate: float):
    scale = ops.cast(1.0 / (1.0 - rate), inputs.dtype)
    return ops.where(mask, inputs * scale, ops.zeros((), inputs.dtype))


def _hash_words(x: np.ndarray) -> np.ndarray:
    """`_hash` of a NumPy array of uint32."""
    with np.errstate(over="ignore"):
        x = (x ^ x >> 16) * np.uint32(0x21F0AAAD)
        x = (x ^ x >> 15) * np.uint32(0xD35A2D97)
    return x ^ x >> 15


def sample_streams(seed: int, passes: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """One stream of random bits for every pass of every row, int32 `(passes, rows)`.

    Args:
        seed: Integer in [0, 2^63).
        passes: Numbers of the stochastic passes, `(passes,)`.
        rows: Numbers of the rows; None gives `(passes, 1)`, one stream for all rows.

    Example:

    >>> some, all = sample_streams(0, np.arange(4), np.arange(2, 5)), np.arange(9)
    >>> bool((some == sample_streams(0, all, all)[:4, 2:5]).all())
    True
    """
    words = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
    keys = _seed_keys(_hash_words, words[:1], words[1:])
    streams = _pass_streams(_hash_words, keys, np.uint32(passes))
    if rows is not None:
        streams = _hash_words(streams + _hash_words(np.uint32(rows) ^ keys[1]))
    return streams.view(np.int32)


def seeded_streams(seeds, passes):
    """The streams that rows share which have the same seed, as tensors, for compiled code.

    Column i is `sample_streams(seeds[i], passes, None)`.

    Args:
        seeds: Integer tensor `(rows,)`, in [0, 2^63).
        passes: int32 tensor `(passes,)`.

    Example:

    >>> streams = seeded_streams(np.array([3, 8]), np.arange(4, dtype="int32"))
    >>> expected = sample_streams(8, np.arange(4), None)
    >>> bool((keras.ops.convert_to_numpy(streams)[:, 1:] == expected).all())
    True
    """
    low = ops.cast(seeds, "int32")  # the low word: a cast wraps around
    high = ops.cast(ops.right_shift(seeds, 32), "int32")
    return _pass_streams(_hash, _seed_keys(_hash, low, high), passes)


def _seed_keys(hashed, low, high):
    return hashed(hashed(low) + high), hashed(hashed(high ^ _HIGH_KEY) + low)


def _pass_streams(hashed, keys, passes):
    return hashed(hashed(passes[:, None] ^ keys[0]) + keys[1])


class SampleMasks:
    """Masks of one call of a model that runs many stochastic passes as one, drawn in their order.

    Made for that call and handed through the layers, as a generator is: each dropout
    draws the next ones. Passes and rows share the batch axis, `(passes · rows, …)`,
    passes outermost. Before the first dropout there is nothing random: a row is
    computed once, and the first dropout repeats it for every pass. A skip
    connection around a dropout must `expand` what it carries.

    A bit of a mask is a hash of the stream of its pass and row plus a key of
    its unit: it does not depend on how passes and rows are cut into chunks.

    Args:
        streams: As of `sample_streams`, of all passes.
        num_rows: Number of rows, an integer or a tensor.
        sparse: The streams are shared by many rows, see `dropout_dense`.
        bfloat16: Multiply in bfloat16 behind the first dropout, see `bfloat16_product`.
    """

    def __init__(self, streams, num_rows, *, sparse: bool = False, bfloat16: bool = False):
        self._streams = streams
        self._num_rows = num_rows
        self._sparse = sparse
        self._bfloat16 = bfloat16
        self._num_units = 0

    def expand(self, x, *, force: bool = False):
        """Repeats rows that do not differ between passes yet; others pass through.

        Before the first dropout no row does, and none is repeated without `force`.
        """
        if not self._num_units and not force:
            return x
        x = self._split(x)
        shape = (ops.shape(self._streams)[0], self._num_rows, *x.shape[2:])
        return self._merge(ops.broadcast_to(x, shape))

    def members_first(self, x):
        """From answers of members, `(passes · rows, members, n)`, to those of as many passes."""
        x = ops.transpose(self._split(x), (0, 2, 1, 3))
        return ops.reshape(x, (-1, x.shape[-1]))

    def dropout(self, x, rate: float, noise_shape=None):
        """Drops units with probability `rate` in every pass; `noise_shape` is Keras'."""
        x = self._split(x)
        shape = x.shape[2:]
        if noise_shape is not None:
            shape = tuple(m or n for m, n in zip(noise_shape[1:], shape, strict=True))
        kept = self._kept(shape, rate)
        scale = ops.cast(1.0 / (1.0 - rate), x.dtype)
        return self._merge(ops.where(kept, x * scale, ops.zeros((), x.dtype)))

    def dense(self, layer: keras.layers.Layer, x):
        """What a layer gives; a dense one in the precision of the products of these passes."""
        plain = type(layer) is not keras.layers.Dense or layer.quantization_mode is not None
        if not self._bfloat16 or plain or not self._num_units:
            return layer(x)
        y = ops.cast(bfloat16_product(x, layer.kernel), layer.compute_dtype)
        y = y + ops.cast(layer.bias, y.dtype) if layer.use_bias else y
        return y if layer.activation is None else layer.activation(y)

    def dropout_dense(self, x, rate: float, dense: keras.layers.Dense):
        """`dense(dropout(x))` of a dense layer without activation.

        Nothing before the first dropout is random, and where rows share their
        masks, a pass takes the same few units from all of them: the product
        without dropout is computed once, and what those units gave is taken off.
        """
        width = x.shape[-1]
        # A pass that drops more keeps the surplus: at width 512 and a rate of 0.05 that
        # happens once in 10^10 passes, and once in 10^6 at worst.
        most = math.ceil(1 + rate * width + 7 * (rate * width) ** 0.5)
        plain = self._num_units or len(x.shape) != 2 or most > width // 4
        if not self._sparse or plain or dense.quantization_mode is not None:
            return self.dense(dense, self.dropout(x, rate))
        dropped = ops.cast(ops.logical_not(self._kept((width,), rate)[:, 0]), x.dtype)
        # bfloat16 is multiplied in pairs: 63 units take longer than 64.
        most = min(-(-most // 16) * 16, width)
        dropped, units = ops.top_k(dropped, most)  # (passes, most)
        x = x * ops.cast(1.0 / (1.0 - rate), x.dtype)
        columns, kernel = ops.transpose(x), ops.cast(dense.kernel, x.dtype)
        if self._bfloat16:
            columns, kernel = (ops.cast(each, "bfloat16") for each in (columns, kernel))
        columns = ops.take(columns, units, axis=0) * ops.cast(dropped, columns.dtype)[..., None]
        columns, kernels = ops.transpose(columns, (0, 2, 1)), ops.take(kernel, units, axis=0)
        product = bfloat16_product if self._bfloat16 else ops.matmul
        return self._merge(dense(x) - ops.cast(product(columns, kernels), x.dtype))

    def _kept(self, unit_shape, rate: float):
        """Which units of the next dropout stay, `(passes, rows or 1, *unit_shape)`."""
        size = math.prod(unit_shape)
        # Keys of all dropouts are drawn from one sequence, in the order of their calls.
        numbers = np.arange(self._num_units, self._num_units + size, dtype=np.uint32)
        self._num_units += size
        keys = _hash_words(_hash_words(numbers + np.uint32(_GOLDEN)) + np.uint32(_GOLDEN))
        keys = keys.view(np.int32).reshape(unit_shape)
        streams = ops.reshape(self._streams, (*ops.shape(self._streams), *[1] * len(unit_shape)))
        return _hash(streams + keys) >= _threshold(rate)

    def _split(self, x):
        """To (1 or passes, rows, ...)."""
        return ops.reshape(x, (-1, self._num_rows, *x.shape[1:]))

    def _merge(self, x):
        return ops.reshape(x, (-1, *x.shape[2:]))
