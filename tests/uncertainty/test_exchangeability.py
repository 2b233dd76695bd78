"""Tests of samples and bets against exchangeability: against SciPy, MAPIE and simulation."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.exchangeability_testing import OnlineMartingaleTest
from scipy.special import kolmogorov
from scipy.stats import betabinom, binom, ks_2samp

from kerasmlp.uncertainty.exchangeability import (
    ConformalStream,
    JumperMartingale,
    kolmogorov_smirnov,
    kolmogorov_tail,
    step_of,
)
from kerasmlp.uncertainty.kept_promises import beta_binomial, chance_of_coverage, chance_of_risk

JUMPS = (1e-4, 1e-3, 1e-2, 1e-1)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 99), st.booleans())
def test_the_distance_of_two_samples_is_scipys(n, m, seed, tied):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), rng.normal(0.3, 1, size=m)
    if tied:
        a, b = a.round(), b.round()
    distance, p = kolmogorov_smirnov(a, b)
    assert distance == pytest.approx(ks_2samp(a, b).statistic, abs=1e-12)
    assert p == pytest.approx(kolmogorov(np.sqrt(n * m / (n + m)) * distance), abs=1e-12)


def test_p_is_close_to_the_exact_one_and_not_below():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.3, 0.5):
        a, b = rng.normal(size=200), rng.normal(shift, 1, size=40)
        p, exact = kolmogorov_smirnov(a, b)[1], ks_2samp(a, b, method="exact").pvalue
        assert exact <= p <= 1.6 * exact + 0.06


def test_the_tail_is_scipys():
    at = np.linspace(0, 6, 400)
    np.testing.assert_allclose([kolmogorov_tail(x) for x in at], kolmogorov(at), atol=1e-11)
    assert kolmogorov_tail(40.0) == 0.0


def test_samples_of_one_distribution_are_seldom_told_apart():
    rng = np.random.default_rng(1)
    p = [kolmogorov_smirnov(rng.normal(size=300), rng.normal(size=20))[1] for _ in range(2000)]
    assert np.mean(np.array(p) < 0.01) <= 0.011
    assert np.mean(np.array(p) < 0.1) <= 0.1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e290, 1e290), min_size=1, max_size=20),
    st.sampled_from([1e-200, 1e-7, 1.0, 1e9]),
)
def test_a_step_is_a_thousandth_of_the_spread_in_any_unit(values, unit):
    values = np.array(values) * unit
    step = step_of(values)
    assert step > 0 and np.isfinite(values / step).all() and np.ptp(np.rint(values / step)) < 2e5
    plain = np.array([3.0, 7.0, 7.0, 100.0]) * unit
    expected = max(np.std([3, 7, 7, 100]) / 1000, 1e-3) * unit
    assert step_of(plain) == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.parametrize("kind", ["even", "low", "high"])
def test_the_martingale_is_the_mean_of_mapies_jumpers(kind):
    rng = np.random.default_rng(2)
    p = {"even": rng.random(300), "low": rng.random(300) ** 3, "high": rng.random(300) ** 0.3}[kind]
    ours, theirs = JumperMartingale(), [OnlineMartingaleTest(jump_size=jump) for jump in JUMPS]
    for value in p:
        ours.bet(value)
        each = [peer.update_simple_jumper_martingale(float(value)) for peer in theirs]
        # the fifth changes sides in every row and keeps what it has
        assert 10**ours.log10_capital == pytest.approx((sum(each) + 1) / 5, rel=1e-9)


def test_a_capital_of_any_size_is_told():
    martingale = JumperMartingale()
    for _ in range(20_000):
        martingale.bet(0.0)
    assert martingale.log10_capital == pytest.approx(20_000 * np.log10(1.5), rel=0.01)


def test_the_stream_is_mapies():
    """Up to the number that decides among equal scores, which is drawn from another generator."""
    scores = np.random.default_rng(3).integers(0, 8, size=120) / 4
    low, high = (ConformalStream(scores[:20], Fixed(u)) for u in (0.0, 1.0))
    peer = OnlineMartingaleTest(random_state=0)
    for t in range(20, len(scores)):
        ends = low.next(scores[t]), high.next(scores[t])
        before = scores[:t]
        above, equal = (before > scores[t]).sum(), (before == scores[t]).sum() + 1
        assert ends == (above / (t + 1), (above + equal) / (t + 1))
        assert ends[0] <= peer.compute_p_value(scores[t], before) <= ends[1]


class Fixed(random.Random):
    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def test_scores_of_no_order_give_even_numbers_and_few_false_alarms():
    """Also where a model of the reference alone would see another distribution in the end."""
    alarms, numbers = 0, []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        stream = ConformalStream(rng.normal(size=20), random.Random(seed))
        martingale, most = JumperMartingale(), 0.0
        for score in rng.normal(size=300):
            numbers.append(stream.next(score))
            martingale.bet(numbers[-1])
            most = max(most, martingale.log10_capital)
        alarms += most >= 1  # 1 of 10 at most
    assert alarms <= 300 * 0.1
    counts = np.histogram(numbers, 10, (0, 1))[0] / len(numbers)
    np.testing.assert_allclose(counts, 0.1, atol=0.004)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 500), st.integers(1, 500))
def test_hits_of_an_unknown_probability_are_scipys(rows, a, b):
    expected = betabinom(rows, a, b).pmf(np.arange(rows + 1))
    np.testing.assert_allclose(beta_binomial(rows, a, b), expected, atol=1e-9)


def test_chances_of_coverage_and_risk_are_scipys():
    assert chance_of_coverage(170, [(200, 500)], 0.9) == pytest.approx(
        betabinom(200, 451, 50).cdf(170), rel=1e-9
    )
    # 0.9 · 20 is 18, not 19
    assert chance_of_coverage(3, [(5, 19)], 0.9) == pytest.approx(betabinom(5, 18, 2).cdf(3))
    both = np.convolve(betabinom(30, 46, 5).pmf(range(31)), betabinom(9, 29, 3).pmf(range(10)))
    found = chance_of_coverage(33, [(30, 50), (9, 31), (0, 90), (70, 8)], 0.9)
    assert found == pytest.approx(both[:34].sum(), rel=1e-9)
    assert chance_of_coverage(5, [(0, 100)], 0.9) is None
    assert chance_of_risk(9, 100, 0.05) == pytest.approx(binom.sf(8, 100, 0.05))
    assert chance_of_risk(0, 100, 0.05) == 1.0


def test_the_promise_of_coverage_is_seldom_called_broken():
    """Limits of so many rows, and rows like them, drawn anew each time."""
    rng, low = np.random.default_rng(4), []
    for _ in range(3000):
        kept_back, new = rng.random(80), rng.random(60)
        hits = int((new <= np.sort(kept_back)[72]).sum())  # the 73rd of 80
        low.append(chance_of_coverage(hits, [(60, 80)], 0.9) < 0.05)
    assert 0.02 < np.mean(low) <= 0.058


def test_rows_that_are_alike_count_once_or_a_promise_is_called_broken():
    """Ten photos of each of 100 people were kept back; the new rows are of as many people."""
    rng, by_rows, by_people = np.random.default_rng(5), [], []
    for _ in range(1000):
        people = rng.normal(size=(100, 1))
        kept_back = (people + rng.normal(size=(100, 10))).ravel() / np.sqrt(2)
        new = rng.normal(size=2000)
        hits = int((new <= np.sort(kept_back)[900]).sum())  # the 901st of 1,000
        by_rows.append(chance_of_coverage(hits, [(2000, 1000)], 0.9) < 0.01)
        by_people.append(chance_of_coverage(hits, [(2000, 100)], 0.9) < 0.01)
    assert np.mean(by_rows) > 0.05 and np.mean(by_people) <= 0.01
