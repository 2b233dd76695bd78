"""Sets of classes that hold the true one with a promised probability."""

import numpy as np

from kerasmlp.uncertainty.conformal import conformal_rank
from kerasmlp.utils.checks import is_number, reject

PENALTY = 0.01
"""Of each class beyond the second: long tails of unlikely classes stay out of sets."""


def set_scores(probabilities: np.ndarray) -> np.ndarray:
    """How far down the list of likely classes each class stands, `(rows, classes)`.

    The score of a class is the probability of all likelier ones, with a small penalty for
    each place after the second; that of the likeliest is 0. So a set is never empty, and where
    a model is right in more rows than were promised one class is enough.

    Args:
        probabilities: `(rows, classes)`.

    Example:

    >>> set_scores(np.array([[0.2, 0.7, 0.1]])).round(2)
    array([[0.7 , 0.  , 0.91]])

    Reference: Romano, Sesia and Candès, "Classification with Valid and Adaptive Coverage",
    2020; Angelopoulos et al., "Uncertainty Sets for Image Classifiers using Conformal
    Prediction", 2021.
    """
    p = np.asarray(probabilities, np.float64)
    order = np.argsort(-p, axis=1, kind="stable")
    down = np.take_along_axis(p, order, axis=1)
    before = np.cumsum(down, axis=1) - down
    before[:, 0] = 0.0
    before += PENALTY * np.maximum(np.arange(p.shape[1]) - 1, 0)
    scores = np.empty_like(before)
    np.put_along_axis(scores, order, before, axis=1)
    return scores


def conformal_set_threshold(
    classes: np.ndarray, probabilities: np.ndarray, coverage: float
) -> float | None:
    """The score up to which classes are in a set, so that sets hold a share of true classes.

    A further row drawn like these has its class in its set with a probability of at least
    `coverage`, whatever the model.

    Args:
        classes: Of rows that the model was not trained on, `(rows,)`.
        probabilities: `(rows, classes)`.
        coverage: In (0, 1).

    Returns:
        None with too few rows for any promise.

    Raises:
        InputError: if `coverage` is out of range.

    Example:

    >>> p = np.array([[0.6, 0.4]] * 10)
    >>> conformal_set_threshold(np.array([0] * 7 + [1] * 3), p, 0.6)
    0.0
    >>> conformal_set_threshold(np.array([0] * 7 + [1] * 3), p, 0.8)
    0.6
    """
    if not is_number(coverage) or not 0 < coverage < 1:
        reject("coverage", "must be in (0, 1)", coverage)
    scores = np.sort(set_scores(probabilities)[np.arange(len(classes)), classes])
    rank = conformal_rank(len(scores), coverage)
    return float(scores[rank - 1]) if rank <= len(scores) else None


def prediction_sets(probabilities: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Which classes are in the set of each row, a mask `(rows, classes)`.

    Args:
        probabilities: `(rows, classes)`.
        threshold: Of `conformal_set_threshold`, or one for each row.

    Example:

    >>> prediction_sets(np.array([[0.9, 0.1], [0.6, 0.4]]), 0.7)
    array([[ True, False],
           [ True,  True]])
    """
    # scores are sums in an order of their own: what is equal but for rounding is in
    return set_scores(probabilities) <= np.reshape(threshold, (-1, 1)) + 1e-9
