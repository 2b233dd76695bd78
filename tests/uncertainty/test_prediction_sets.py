"""Sets of classes, against crepes and MAPIE, and against a plain loop."""

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kerasmlp.uncertainty.prediction_sets import (
    PENALTY,
    conformal_set_threshold,
    prediction_sets,
    set_scores,
)
from kerasmlp.utils.checks import InputError


def drawn(rows, classes, rng):
    """Probabilities of a model that is right as often as it says, and the classes of rows."""
    p = rng.dirichlet(np.full(classes, 0.4), rows)
    return p, np.array([rng.choice(classes, p=row) for row in p])


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(0, 1))
)
def test_scores_are_the_mass_of_likelier_classes(raw):
    p = (raw + 1e-6) / (raw + 1e-6).sum(axis=1, keepdims=True)
    scores = set_scores(p)
    for row, found in zip(p, scores, strict=True):
        before = sorted(range(len(row)), key=lambda k: (-row[k], k))
        mass = 0.0
        for place, k in enumerate(before):
            assert found[k] == pytest.approx(mass + PENALTY * max(place - 1, 0), abs=1e-12)
            mass += row[k]
    assert prediction_sets(p, 0.0).any(axis=1).all()  # never empty


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_sets_hold_what_was_promised_and_are_those_of_crepes(classes):
    rng = np.random.default_rng(classes)
    p, truth = drawn(600, classes, rng)
    new, actual = drawn(4000, classes, rng)
    for coverage in (0.8, 0.9, 0.95):
        threshold = conformal_set_threshold(truth, p, coverage)
        sets = prediction_sets(new, threshold)
        held = sets[np.arange(len(new)), actual].mean()
        assert held > coverage - 0.03
        if (new.argmax(axis=1) == actual).mean() < coverage:
            assert held < coverage + 0.03
        peer = ConformalClassifier().fit(set_scores(p)[np.arange(len(truth)), truth])
        values = peer.predict_p(set_scores(new), smoothing=False)
        np.testing.assert_array_equal(sets, values > 1 - coverage + 1e-9)


def test_one_class_is_enough_where_randomised_sets_would_be_empty():
    """With a share of the class's own probability sets hold no more than was promised."""
    rng = np.random.default_rng(0)
    p, truth = drawn(3000, 2, rng)
    sure = np.where(rng.random(3000) < 0.97, p.argmax(axis=1), truth)  # right in most rows
    scores = set_scores(p) + rng.random((3000, 1)) * p
    limit = np.quantile(scores[np.arange(1500), sure[:1500]], 0.9)
    held = (scores <= limit)[np.arange(1500, 3000), sure[1500:]].mean()
    assert held == pytest.approx(0.9, abs=0.025)
    assert prediction_sets(p, 0.0)[np.arange(3000), sure].mean() > 0.95  # one class is enough


def test_too_few_rows_promise_nothing():
    p, truth = drawn(8, 3, np.random.default_rng(1))
    assert conformal_set_threshold(truth, p, 0.9) is None
    assert conformal_set_threshold(truth, p, 0.8) is not None
    with pytest.raises(InputError, match="coverage"):
        conformal_set_threshold(truth, p, 90)
