"""The masks are held to what a dropout mask must be: right rate, no structure, no repetition."""

import keras
import numpy as np
import pytest
from scipy import stats

from kerasmlp.masks import keep_mask


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


def test_every_backend_draws_the_same_bits():
    """The words of a mask, computed in plain Python integers."""

    def scramble(x):
        x = (x ^ x >> 16) * 0x21F0AAAD & 0xFFFFFFFF
        x = (x ^ x >> 15) * 0xD35A2D97 & 0xFFFFFFFF
        return x ^ x >> 15

    seed, step, rate = 12345, 678, 0.3
    stream = scramble((scramble(seed) + step) & 0xFFFFFFFF)
    expected = []
    for position in range(200):
        word = scramble(scramble(position * 0x9E3779B9 + stream & 0xFFFFFFFF) ^ stream)
        signed = word - (1 << 32) if word >= 1 << 31 else word
        expected.append(signed >= round(rate * 2**32) - 2**31)
    np.testing.assert_array_equal(mask((200,), rate, seed, step), expected)


def test_rates_close_to_one_do_not_overflow():
    assert not mask((1000,), 1 - 1e-12).any()
