import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasmlp.evaluation import metrics
from kerasmlp.utils.checks import InputError


@pytest.fixture(params=[2, 8, 101])
def predictions(request):
    rng = np.random.default_rng(request.param)
    probabilities = rng.dirichlet(np.full(request.param, 0.3), size=500)
    labels = np.array([rng.choice(request.param, p=p) for p in probabilities])
    return labels, probabilities


def test_against_scikit_learn(predictions):
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, probabilities = predictions
    classes = np.arange(probabilities.shape[1])
    top = probabilities.argmax(axis=1)
    assert metrics.accuracy(labels, top) == pytest.approx(sklearn.accuracy_score(labels, top))
    expected = sklearn.log_loss(labels, np.maximum(probabilities, 1e-12), labels=classes)
    assert metrics.nll(labels, probabilities) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(
        metrics.confusion_matrix(labels, top, len(classes)),
        sklearn.confusion_matrix(labels, top, labels=classes),
    )
    assert metrics.mae_years(labels, top) == pytest.approx(sklearn.mean_absolute_error(labels, top))
    if len(classes) == 2:
        binary = sklearn.brier_score_loss(labels, probabilities[:, 1])
        assert metrics.brier(labels, probabilities) == pytest.approx(2 * binary)


def test_ece_against_a_loop(predictions):
    labels, probabilities = predictions
    top, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    expected = 0.0
    for k in range(15):
        rows = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if rows.any():
            gap = abs((top[rows] == labels[rows]).mean() - confidence[rows].mean())
            expected += rows.mean() * gap
    assert metrics.ece(labels, probabilities) == pytest.approx(expected, abs=1e-12)
    assert metrics.ece(labels, np.eye(probabilities.shape[1])[labels]) == 0


def test_brier_against_a_loop(predictions):
    labels, probabilities = predictions
    expected = np.mean(
        [
            sum((p - (k == label)) ** 2 for k, p in enumerate(row))
            for label, row in zip(labels, probabilities, strict=True)
        ]
    )
    assert metrics.brier(labels, probabilities) == pytest.approx(expected)


def test_edges():
    sure_and_wrong = np.array([[1.0, 0.0]])
    assert metrics.nll([1], sure_and_wrong) == pytest.approx(12 * np.log(10))
    assert metrics.brier([1], sure_and_wrong) == 2
    assert metrics.ece([1], sure_and_wrong) == 1
    half = np.full((1, 101), 1 / 101, np.float16)
    assert metrics.nll([5], half) == pytest.approx(np.log(101), rel=1e-3)
    assert metrics.one_off_accuracy([0, 7], [1, 5]) == 0.5
    assert metrics.cumulative_score([10, 20], [15, 26], 5) == 0.5
    assert metrics.cumulative_score([10, 20], [10, 26], 0) == 0.5
    assert metrics.accuracy(np.array([255, 1], np.uint8), np.array([0, 1], np.int8)) == 0.5
    assert metrics.one_off_accuracy(np.array([0], np.uint8), np.array([1], np.uint8)) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=50))
def test_relations(pairs):
    labels, predicted = np.array(pairs).T
    matrix = metrics.confusion_matrix(labels, predicted, 10)
    assert matrix.sum() == len(labels)
    assert np.trace(matrix) / len(labels) == metrics.accuracy(labels, predicted)
    assert metrics.accuracy(labels, predicted) <= metrics.one_off_accuracy(labels, predicted)
    assert metrics.cumulative_score(labels, predicted, 1) == metrics.one_off_accuracy(
        labels, predicted
    )


def test_reliability_bins_against_a_loop(predictions):
    labels, probabilities = predictions
    top, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    bins = metrics.reliability_bins(labels, probabilities, 10)
    for k in range(10):
        rows = (confidence > k / 10) & (confidence <= (k + 1) / 10)
        assert bins["rows"][k] == rows.sum()
        if rows.any():
            assert bins["accuracy"][k] == pytest.approx((top[rows] == labels[rows]).mean())
            assert bins["confidence"][k] == pytest.approx(confidence[rows].mean())
        else:
            assert np.isnan(bins["accuracy"][k]) and np.isnan(bins["confidence"][k])


def test_intervals_against_a_loop():
    rng = np.random.default_rng(0)
    ages = rng.integers(0, 100, 300)
    ends = np.sort(rng.uniform(0, 100, size=(300, 2)), axis=1)
    inside = [low <= age <= high for age, (low, high) in zip(ages, ends, strict=True)]
    assert metrics.interval_coverage(ages, ends) == pytest.approx(sum(inside) / 300)
    assert metrics.interval_width(ends) == pytest.approx(sum(h - low for low, h in ends) / 300)
    assert metrics.interval_coverage([3, 5], [[3, 4], [4, 5]]) == 1


GOOD = np.array([[0.5, 0.5], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: metrics.accuracy([], []), "`labels` must hold one or more integers"),
        (lambda: metrics.accuracy([0.0], [0]), "`labels` must hold one or more integers"),
        (lambda: metrics.accuracy([0], [0, 1]), "`predicted` must hold 1 rows. Received: .*=2"),
        (lambda: metrics.accuracy([-1], [0]), "`labels` must hold classes >= 0. Received: .*=-1"),
        (lambda: metrics.accuracy([[0]], [[0]]), r"`labels` must .*shape \(1, 1\)"),
        (lambda: metrics.nll([0, 2], GOOD), r"`labels` must hold classes in \[0, 2\). .*=2"),
        (lambda: metrics.nll([0, -1], GOOD), r"`labels` must hold classes in \[0, 2\). .*=-1"),
        (lambda: metrics.nll([0], GOOD), "`probabilities` must hold 1 rows. Received: .*=2"),
        (lambda: metrics.nll([0, 1], GOOD[0]), "`probabilities` must be numbers"),
        (lambda: metrics.nll([0, 1], GOOD * 2), "`probabilities` must be >= 0 and sum to 1"),
        (lambda: metrics.brier([0, 1], GOOD * np.nan), "`probabilities` must be >= 0"),
        (lambda: metrics.brier([0], [[1.5, -0.5]]), "`probabilities` must be >= 0"),
        (lambda: metrics.ece([0, 1], GOOD, 0), "`num_bins` must be an integer >= 1"),
        (lambda: metrics.mae_years([np.nan], [1]), "`age_years` must hold finite numbers"),
        (lambda: metrics.mae_years([1], [np.inf]), "`predicted_years` must hold finite"),
        (lambda: metrics.mae_years(["1"], [1]), "`age_years` must hold one or more numbers"),
        (lambda: metrics.cumulative_score([1], [1], -1), "`k` must be a finite number >= 0"),
        (lambda: metrics.interval_coverage([1, 2], [[0, 1]]), "`age_years` must hold 1 rows"),
        (lambda: metrics.interval_coverage([1], [0, 1]), r"`intervals` must be numbers \(rows, 2"),
        (lambda: metrics.interval_coverage([1], [[2, 1]]), "`intervals` must not end before"),
        (lambda: metrics.interval_width([[0, np.nan]]), "`intervals` must hold finite numbers"),
        (lambda: metrics.interval_width(np.ones((0, 2))), "`intervals` must hold one or more"),
        (lambda: metrics.confusion_matrix([2], [0], 2), r"`labels` must hold classes in \[0, 2\)"),
        (lambda: metrics.confusion_matrix([0], [2], 2), r"`predicted` must hold classes in"),
    ],
)
def test_bad_arguments(call, text):
    with pytest.raises(InputError, match=text):
        call()
