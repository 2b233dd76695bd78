import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmlp.uncertainty.abstention import CONFIDENCE, Abstention
from kerasmlp.uncertainty.selective import aurc, auroc, binomial_cdf, risk_coverage, upper_risk
from kerasmlp.utils.checks import InputError


def test_the_curve_against_a_loop():
    rng = np.random.default_rng(0)
    errors, uncertainty = rng.integers(0, 2, 60), rng.permutation(60)
    curve = risk_coverage(errors, uncertainty)
    for k in range(1, 61):
        most_certain = sorted(range(60), key=lambda i: uncertainty[i])[:k]
        assert curve[k - 1] == pytest.approx(sum(errors[i] for i in most_certain) / k)
    assert aurc(errors, uncertainty) == pytest.approx(sum(curve) / 60)


def test_ties_count_as_the_mean_over_all_orders():
    errors, uncertainty = np.array([1, 0, 0, 1, 1]), np.array([2.0, 1, 2, 2, 3])
    rng = np.random.default_rng(1)
    shuffled = [risk_coverage(errors, uncertainty + 1e-6 * rng.permutation(5)) for _ in range(4000)]
    np.testing.assert_allclose(
        risk_coverage(errors, uncertainty), np.mean(shuffled, axis=0), atol=0.02
    )
    flat = risk_coverage(errors, np.zeros(5))
    np.testing.assert_allclose(flat, errors.mean())  # no order at all is abstention at random


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=40))
def test_nothing_beats_the_oracle(pairs):
    errors, uncertainty = np.array(pairs).T
    oracle, worst = aurc(errors, errors), aurc(errors, -errors)
    assert oracle - 1e-12 <= aurc(errors, uncertainty) <= worst + 1e-12
    assert oracle - 1e-12 <= errors.mean() <= worst + 1e-12


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
)
def test_auroc_against_all_pairs(negative, positive):
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(negative, positive) == pytest.approx(np.mean(pairs))


def test_auroc_against_scikit_learn():
    roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score
    rng = np.random.default_rng(2)
    negative, positive = rng.normal(size=200).round(1), rng.normal(0.7, size=300).round(1)
    labels = np.repeat([0, 1], [200, 300])
    expected = roc_auc_score(labels, np.concatenate([negative, positive]))
    assert auroc(negative, positive) == pytest.approx(expected)


def test_the_binomial_against_its_sum():
    from math import comb

    for rows, risk in ((7, 0.3), (60, 0.05)):
        for errors in range(rows + 1):
            terms = (comb(rows, i) * risk**i * (1 - risk) ** (rows - i) for i in range(errors + 1))
            assert binomial_cdf(errors, rows, risk) == pytest.approx(sum(terms))
    assert binomial_cdf(2000, 100_000, 0.02) == pytest.approx(0.5, abs=0.01)
    assert (binomial_cdf(0, 5, 0.0), binomial_cdf(0, 5, 1.0)) == (1.0, 0.0)
    bound = upper_risk(3, 50, 0.95)
    assert binomial_cdf(3, 50, bound) == pytest.approx(0.05, abs=1e-9)
    assert upper_risk(5, 5, 0.9) == 1


def rising(rows, rng):
    uncertainty = rng.random(rows)
    return rng.random(rows) < 0.5 * uncertainty**2, uncertainty


@pytest.mark.parametrize("rows", [60, 1000])
def test_the_risk_is_kept_as_often_as_promised(rows):
    """Below a threshold t the true risk is t² / 6: the threshold of a risk of 0.1 is 0.77."""
    rng = np.random.default_rng(3)
    thresholds = [Abstention.fit(*rising(rows, rng)).threshold(0.1) for _ in range(300)]
    broken = [t is not None and t > np.sqrt(0.6) for t in thresholds]
    assert np.mean(broken) <= 1 - CONFIDENCE
    if rows == 1000:  # and it is not bought by silence
        assert np.mean([t or 0.0 for t in thresholds]) > 0.55


def test_the_lowest_risk_is_where_answers_begin():
    for seed in range(20):
        abstention = Abstention.fit(*rising(80, np.random.default_rng(seed)))
        lowest = abstention.lowest_risk()
        assert abstention.threshold(lowest - 1e-6) is None
        assert abstention.threshold(lowest + 1e-6) is not None


def test_edges_of_abstention():
    never_wrong = Abstention.fit(np.zeros(5000), np.arange(5000.0))
    assert len(never_wrong.rows) == 1000 and never_wrong.rows[-1] == 5000
    assert never_wrong.threshold(0.05) == 4999
    assert Abstention.fit(np.ones(500), np.arange(500.0)).threshold(0.9) is None
    assert Abstention.fit(np.zeros(10), np.zeros(10)).rows == [10]  # one threshold, all tied
    assert Abstention.fit(np.zeros(3), np.arange(3.0)).threshold(0.05) is None


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: risk_coverage([], []), "`errors` must hold one or more numbers"),
        (lambda: risk_coverage([0, 1], [0.1]), "`uncertainty` must hold 2 rows. Received: .*=1"),
        (lambda: aurc([0, 1], [0.1, np.nan]), "`uncertainty` must hold finite numbers. .* row 1"),
        (lambda: aurc([[0]], [[1]]), r"`errors` must .*shape \(1, 1\)"),
        (lambda: auroc(["a"], [1]), "`negative` must hold one or more numbers"),
        (lambda: auroc([1], []), "`positive` must hold one or more numbers"),
        (lambda: binomial_cdf(0, 0, 0.5), "`rows` must be an integer >= 1"),
        (lambda: Abstention([1.0], [5], [6]), "`thresholds` must be numbers that rise"),
        (lambda: Abstention([2.0, 1.0], [5, 6], [0, 0]), "`thresholds` must be numbers"),
        (lambda: Abstention([], [], []), "`thresholds` must be numbers"),
        (lambda: Abstention([1.0], [5, 6], [0, 0]), "`thresholds` must be numbers"),
        (lambda: Abstention(["1"], [5], [0]), "`thresholds` must be numbers"),
        (lambda: Abstention([1.0], [5], [0]).threshold(1.0), r"`max_risk` must be in \(0, 1\)"),
        (lambda: Abstention([1.0], [5], [0]).threshold(0), r"`max_risk` must be in \(0, 1\)"),
    ],
)
def test_bad_arguments(call, text):
    with pytest.raises(InputError, match=text):
        call()
