"""Which labels are hardly right, by answers of models that have not learned from them."""

from typing import NamedTuple

import numpy as np


def self_confidence(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The probability of each row's own label, `(rows,)`: the smaller, the more suspicious.

    Args:
        labels: Numbers of classes, `(rows,)`.
        probabilities: `(rows, num_classes)`.
    """
    return probabilities[np.arange(len(labels)), labels].astype(np.float64)


def likeliest_other(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The likeliest class of each row beside its own label, `(rows,)`."""
    others = np.array(probabilities, np.float64)
    others[np.arange(len(labels)), labels] = -1
    return others.argmax(axis=1)


def normalized_margin(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """By how much the label is likelier than the likeliest other class, 0 to 1, `(rows,)`.

    Args:
        labels: Numbers of classes, `(rows,)`.
        probabilities: `(rows, num_classes)`.

    Example:

    >>> normalized_margin(np.array([0, 2]), np.array([[0.75, 0.25, 0.0], [0.5, 0.25, 0.25]]))
    array([0.75 , 0.375])
    """
    own = self_confidence(labels, probabilities)
    other = self_confidence(likeliest_other(labels, probabilities), probabilities)
    return (own - other + 1) / 2


def class_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How likely rows of a class find it on average, `(num_classes,)`; infinity without rows.

    A class that is hard to tell has a low one: less makes a row one of it.
    """
    number = probabilities.shape[1]
    rows = np.bincount(labels, minlength=number)
    sums = np.bincount(labels, self_confidence(labels, probabilities), minlength=number)
    return np.where(rows > 0, sums / np.maximum(rows, 1), np.inf)


def confident_classes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The class that each row is confidently of, -1 of none, `(rows,)`.

    Of all classes that reach their threshold it is the likeliest.

    Example:

    >>> p = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.95, 0.05]])
    >>> class_thresholds(np.array([0, 0, 1, 1]), p)
    array([0.8  , 0.425])
    >>> confident_classes(np.array([0, 0, 1, 1]), p)
    array([ 0, -1,  1,  0])
    """
    enough = probabilities >= class_thresholds(labels, probabilities) - 1e-6
    found = np.where(enough, probabilities, -1).argmax(axis=1)
    return np.where(enough.any(axis=1), found, -1)


class Joint(NamedTuple):
    """How many rows of which label are of which class; pairs of no rows are left out.

    Attributes:
        labels: Numbers of classes, `(pairs,)`.
        classes: The same, of what the rows are.
        rows: How many, fractions of rows too.
    """

    labels: np.ndarray
    classes: np.ndarray
    rows: np.ndarray


def estimated_joint(labels: np.ndarray, probabilities: np.ndarray) -> Joint:
    """How many rows of each label are of each class; where the two differ, labels are wrong.

    Confident rows are counted, and the counts of a label brought to its rows.

    Args:
        labels: Numbers of classes, `(rows,)`.
        probabilities: Out of fold, `(rows, num_classes)`.

    Example:

    >>> p = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.95, 0.05]])
    >>> estimated_joint(np.array([0, 0, 1, 1]), p)
    Joint(labels=array([0, 1, 1]), classes=array([0, 0, 1]), rows=array([2., 1., 1.]))

    Reference: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
    Dataset Labels", 2021, equations 1 to 3.
    """
    number, confident = probabilities.shape[1], confident_classes(labels, probabilities)
    own, rows = np.unique(labels, return_counts=True)
    pairs = np.where(confident >= 0, labels * number + confident, -1)
    pairs, counts = np.unique(pairs[pairs >= 0], return_counts=True)
    right = own * (number + 1)  # counted once at least: no label is wrong as a whole
    missing = np.setdiff1d(right, pairs)
    pairs, counts = np.append(pairs, missing), np.append(counts, np.ones(len(missing)))
    order = np.argsort(pairs)
    given, classes = np.divmod(pairs[order], number)
    shares = counts[order] / np.bincount(given, counts[order])[given]
    return Joint(given, classes, shares * rows[np.searchsorted(own, given)])
