"""The orders of rows that TensorFlow draws, without it: a run sees the same ones everywhere."""

import numpy as np

_LOW = np.uint64(0xFFFFFFFF)
_FACTORS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_BUMPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_SEED_KEY = np.uint64(0x3EC8F720), np.uint64(0x02461E29)
_ROUNDS = 10


def permutation(rows: int, seed: tuple[int, int]) -> np.ndarray:
    """What `tf.random.experimental.stateless_shuffle` makes of `range(rows)`.

    Each place in turn is swapped with one of those from it on, drawn by a remainder.

    Args:
        rows: Length.
        seed: Two integers of 64 bits.

    Example:

    >>> permutation(5, (8, 9)).tolist()
    [1, 2, 0, 3, 4]
    """
    order = list(range(rows))
    left = np.arange(rows, 0, -1, dtype=np.uint32)
    steps = (random_words(rows, seed) % left).tolist()
    for i, step in enumerate(steps):
        order[i], order[i + step] = order[i + step], order[i]
    return np.array(order, np.int32)


def uniforms(size: int, seed: tuple[int, int]) -> np.ndarray:
    """What `tf.random.stateless_uniform` draws on a CPU: float32 in [0, 1) of 23 bits each.

    Args:
        size: How many.
        seed: Two integers of 64 bits.

    Example:

    >>> uniforms(3, (8, 9)).round(4)
    array([0.5138, 0.7712, 0.163 ], dtype=float32)
    """
    bits = random_words(size, seed) & np.uint32(0x7FFFFF) | np.uint32(0x3F800000)
    return bits.view(np.float32) - np.float32(1)


def random_words(size: int, seed: tuple[int, int]) -> np.ndarray:
    """Random uint32 of Philox 4×32-10, its key and counter mixed from the seed as TensorFlow does.

    Args:
        size: How many.
        seed: Two integers of 64 bits.

    Example:

    >>> random_words(5, (0, 0)).shape
    (5,)

    Reference: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011.
    """
    words = [np.uint64(n & 0xFFFFFFFFFFFFFFFF) for n in seed]
    halves = [half for word in words for half in (word & _LOW, word >> np.uint64(32))]
    mixed = _philox(halves, _SEED_KEY)
    counter = np.arange(-(-size // 4), dtype=np.uint64)
    blocks = _philox((counter & _LOW, counter >> np.uint64(32), *mixed[2:]), mixed[:2])
    words = np.stack(np.broadcast_arrays(*blocks), axis=-1)
    return words.astype(np.uint32).reshape(-1)[:size]


def _philox(counter, key) -> tuple:
    """Four words of 32 bits, held in 64, of each counter of as many."""
    a, b, c, d = counter
    for number in map(np.uint64, range(_ROUNDS)):
        bumped = [(k + number * bump) & _LOW for k, bump in zip(key, _BUMPS, strict=True)]
        first, second = _FACTORS[0] * a, _FACTORS[1] * c
        a, b = (second >> np.uint64(32)) ^ b ^ bumped[0], second & _LOW
        c, d = (first >> np.uint64(32)) ^ d ^ bumped[1], first & _LOW
    return a, b, c, d
