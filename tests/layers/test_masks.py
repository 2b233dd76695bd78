"""The masks are held to what a dropout mask must be: right rate, no structure, no repetition."""

import keras
import numpy as np
import pytest
from scipy import stats

from kerasmlp.layers.masks import SampleMasks, keep_mask, sample_streams, seeded_streams


def mask(shape, rate, seed=0, step=0):
    words = np.array([seed, step], "int32")
    return keras.ops.convert_to_numpy(keep_mask(shape, rate, words))


@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.05, 0.35, 0.5, 0.9])
def test_rate(rate):
    dropped = ~mask((1000, 1000), rate)
    expected = rate * dropped.size
    assert abs(dropped.sum() - expected) <= 5 * np.sqrt(expected + 1)


def test_frequencies_pass_a_chi_square_test_per_unit_and_per_row():
    dropped = ~mask((4000, 512), 0.05, seed=7, step=3)
    for counts, trials in ((dropped.sum(axis=0), 4000), (dropped.sum(axis=1), 512)):
        statistic = ((counts - 0.05 * trials) ** 2 / (0.05 * 0.95 * trials)).sum()
        assert 1e-4 < stats.chi2.sf(statistic, len(counts)) < 1 - 1e-4


@pytest.mark.parametrize("lag", [1, 2, 8, 64, 512, 513])
def test_neighbours_are_independent(lag):
    bits = mask((1 << 21,), 0.5, seed=3).astype(np.int8) * 2 - 1
    correlation = float(np.mean(bits[:-lag].astype(float) * bits[lag:]))
    assert abs(correlation) < 5 / np.sqrt(len(bits))


def test_steps_and_seeds_are_independent_streams():
    streams = [mask((1 << 20,), 0.5, seed=s, step=t) for s in (0, 1, 2) for t in (0, 1, 2)]
    for i, a in enumerate(streams):
        for b in streams[:i]:
            assert abs(np.mean(a == b) - 0.5) < 5 * 0.5 / np.sqrt(len(a))


def test_no_stream_is_a_shifted_copy_of_the_next():
    a, b = mask((4096,), 0.5, step=0), mask((4096,), 0.5, step=1)
    for shift in range(-64, 65):
        same = np.mean(np.roll(a, shift) == b)
        assert abs(same - 0.5) < 6 * 0.5 / np.sqrt(len(a))


def test_counts_per_byte_are_uniform():
    bits = mask((1 << 20,), 0.5, seed=11).reshape(-1, 8)
    patterns = np.packbits(bits, axis=1).ravel()
    p = stats.chisquare(np.bincount(patterns, minlength=256)).pvalue
    assert 1e-4 < p < 1 - 1e-4


def test_same_seed_same_mask():
    np.testing.assert_array_equal(mask((64, 8), 0.3, 5, 9), mask((64, 8), 0.3, 5, 9))


def scramble(x):
    x &= 0xFFFFFFFF
    x = (x ^ x >> 16) * 0x21F0AAAD & 0xFFFFFFFF
    x = (x ^ x >> 15) * 0xD35A2D97 & 0xFFFFFFFF
    return x ^ x >> 15


def test_every_backend_draws_the_same_bits():
    """The words of a mask, computed in plain Python integers."""

    seed, step, rate = 12345, 678, 0.3
    stream = scramble(scramble(seed) + step)
    expected = []
    for position in range(200):
        word = scramble(scramble(position * 0x9E3779B9 + stream) ^ stream)
        signed = word - (1 << 32) if word >= 1 << 31 else word
        expected.append(signed >= round(rate * 2**32) - 2**31)
    np.testing.assert_array_equal(mask((200,), rate, seed, step), expected)


def test_rates_close_to_one_do_not_overflow():
    assert not mask((1000,), 1 - 1e-12).any()


def sample_masks(rate, passes, rows, units, seed=0, layers=1):
    """Booleans (layers, passes, rows, units) of dropped units."""
    masks = SampleMasks(sample_streams(seed, np.arange(passes), np.arange(rows)), rows)
    ones = np.ones((rows, units), "float32")
    found = [keras.ops.convert_to_numpy(masks.dropout(ones, rate)) for _ in range(layers)]
    return np.stack(found).reshape(layers, passes, rows, units) == 0


def test_sample_masks_pass_chi_square_tests_along_every_axis():
    dropped = sample_masks(0.05, 256, 32, 512, seed=5)[0]
    for axes in ((0, 1), (0, 2), (1, 2)):
        counts = dropped.sum(axis=axes).ravel()
        trials = dropped.size // counts.size
        statistic = ((counts - 0.05 * trials) ** 2 / (0.05 * 0.95 * trials)).sum()
        assert 1e-4 < stats.chi2.sf(statistic, len(counts)) < 1 - 1e-4


def test_passes_rows_layers_and_seeds_have_independent_masks():
    a = sample_masks(0.5, 64, 16, 128, seed=1, layers=2)
    b = sample_masks(0.5, 64, 16, 128, seed=2, layers=2)
    n = a[0].size
    pairs = {
        "passes": (a[:, 1:], a[:, :-1]),
        "rows": (a[:, :, 1:], a[:, :, :-1]),
        "units": (a[..., 1:], a[..., :-1]),
        "layers": (a[0], a[1]),
        "seeds": (a, b),
        "passes and rows swapped": (a[:, :16], a[:, :16].swapaxes(1, 2)),
    }
    for name, (first, second) in pairs.items():
        same = np.mean(first == second)
        expected = 0.5 if "swapped" not in name else 0.5 + 0.5 / 16  # the diagonal is itself
        assert abs(same - expected) < 5 * 0.5 / np.sqrt(min(n, first.size)), name


def test_no_two_passes_of_many_are_alike():
    dropped = sample_masks(0.05, 2000, 4, 512)[0].reshape(8000, 512)
    assert len(np.unique(np.packbits(dropped, axis=1), axis=0)) == 8000


SEEDS = [0, 1, 77, 2**31 - 1]
LARGE = [2**31, 2**32 - 1, 2**32, 2**40 + 7, 2**63 - 1]  # JAX keeps 32 bits by default
if keras.backend.backend() == "tensorflow":
    SEEDS += LARGE


@pytest.mark.parametrize("seed", SEEDS)
def test_streams_in_arrays_and_in_tensors_are_the_same(seed):
    """Both against plain Python integers."""
    low, high = seed & 0xFFFFFFFF, seed >> 32
    first = scramble(scramble(low) + high)
    second = scramble(scramble(high ^ 0x3C6EF372) + low)
    shared = [scramble(scramble(p ^ first) + second) for p in range(9)]
    expected = np.array(shared, np.uint32).view(np.int32)[:, None]
    np.testing.assert_array_equal(sample_streams(seed, np.arange(9), None), expected)
    seeds = keras.ops.convert_to_tensor(np.array([seed, 5]))
    streams = keras.ops.convert_to_numpy(seeded_streams(seeds, np.arange(9, dtype="int32")))
    np.testing.assert_array_equal(streams[:, :1], expected)
    of_rows = [[scramble(s + scramble(r ^ second)) for r in (3, 8)] for s in shared]
    np.testing.assert_array_equal(
        sample_streams(seed, np.arange(9), np.array([3, 8])),
        np.array(of_rows, np.uint32).view(np.int32),
    )


def test_streams_of_neighbouring_seeds_passes_and_rows_share_nothing():
    """A bit of any two of them agrees half of the time."""
    seeds = np.stack([sample_streams(s, np.arange(64), np.arange(64)) for s in range(16)])
    bits = np.unpackbits(seeds.view(np.uint8), axis=-1).astype(np.int8)
    for axis in range(3):
        same = np.mean(np.delete(bits, 0, axis) == np.delete(bits, -1, axis))
        assert abs(same - 0.5) < 5 * 0.5 / np.sqrt(bits.size)
    assert len(np.unique(seeds)) > 0.9999 * seeds.size
