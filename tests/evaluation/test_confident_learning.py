"""Scores of labels against loops of NumPy and against cleanlab."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmlp.evaluation.confident_learning import (
    class_thresholds,
    confident_classes,
    estimated_joint,
    likeliest_other,
    normalized_margin,
    self_confidence,
)


def made(seed, rows=300, classes=4, noise=0.15):
    """Labels, some wrong, and probabilities that mostly know better."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    p = rng.dirichlet(np.full(classes, 0.4), rows) + 1.5 * np.eye(classes)[truth]
    labels = np.where(rng.random(rows) < noise, rng.integers(0, classes, rows), truth)
    return labels, p / p.sum(axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 40))
def test_scores_are_those_of_loops(seed, classes, rows):
    labels, p = made(seed, rows, classes)
    thresholds = class_thresholds(labels, p)
    for k in range(classes):
        own = p[labels == k, k]
        assert thresholds[k] == (pytest.approx(own.mean()) if len(own) else np.inf)
    confident, other = confident_classes(labels, p), likeliest_other(labels, p)
    margins, own = normalized_margin(labels, p), self_confidence(labels, p)
    joint = np.zeros((classes, classes))
    for i in range(rows):
        others = np.delete(p[i], labels[i])
        assert own[i] == p[i, labels[i]]
        assert p[i, other[i]] == others.max() and other[i] != labels[i]
        assert margins[i] == pytest.approx((own[i] - others.max() + 1) / 2)
        enough = [k for k in range(classes) if p[i, k] >= thresholds[k] - 1e-6]
        best = max(enough, key=lambda k: p[i, k], default=-1)
        assert confident[i] == best
        if best >= 0:
            joint[labels[i], best] += 1
    joint[np.diag_indices(classes)] = np.maximum(joint.diagonal(), 1)
    of_label = np.bincount(labels, minlength=classes)
    joint *= (of_label / joint.sum(axis=1))[:, None]
    np.testing.assert_allclose(table(estimated_joint(labels, p), classes), joint)


def table(joint, classes):
    found = np.zeros((classes, classes))
    found[joint.labels, joint.classes] = joint.rows
    return found


def test_cleanlab_says_the_same():
    rank = pytest.importorskip("cleanlab.rank", reason="needs cleanlab (`pip install cleanlab`)")
    from cleanlab.count import num_label_issues

    for seed in range(3):
        labels, p = made(seed, rows=2000, classes=3)
        for method, ours in (
            ("self_confidence", self_confidence),
            ("normalized_margin", normalized_margin),
        ):
            theirs = rank.get_label_quality_scores(labels, p, method=method)
            np.testing.assert_allclose(ours(labels, p), theirs, atol=1e-6, rtol=0)
        joint = estimated_joint(labels, p)
        wrong = joint.rows[joint.labels != joint.classes].sum()
        expected = num_label_issues(labels, p, estimation_method="off_diagonal_calibrated")
        assert wrong == pytest.approx(expected, abs=2)  # they round each cell


def test_noise_of_one_class_into_another_is_found():
    """The paper's claim: with a good model the joint is that of the labels that were changed."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 3000)
    labels = np.where((truth == 0) & (rng.random(3000) < 0.2), 2, truth)
    p = np.full((3000, 3), 0.03)
    p[np.arange(3000), truth] = 0.94
    expected = np.zeros((3, 3))
    np.add.at(expected, (labels, truth), 1)
    np.testing.assert_allclose(table(estimated_joint(labels, p), 3), expected)


def test_thousands_of_classes_take_no_table_of_their_squares():
    labels, p = np.array([3, 99_999, 3]), np.zeros((3, 100_000), np.float32)
    p[[0, 1, 2], [3, 3, 3]] = 1
    joint = estimated_joint(labels, p)
    assert list(zip(*map(list, joint), strict=True)) == [(3, 3, 2.0), (99_999, 3, 0.5), (
        99_999, 99_999, 0.5)]  # fmt: skip
