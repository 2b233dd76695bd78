"""Answering only where it is sure enough: curves, areas and thresholds; numpy only, floor 0."""

import math
from typing import Any

import numpy as np

from kerasmlp.utils.checks import check_int, reject


def risk_coverage(errors, uncertainty) -> np.ndarray:
    """Risk of the k most certain rows, for k = 1 to all.

    Rows of equal uncertainty come in no order: each counts as their mean, as
    over all orders.

    Args:
        errors: Loss of each row, `(rows,)`, such as 1 where the class is wrong.
        uncertainty: `(rows,)`, any scale, higher is less sure.

    Returns:
        `(rows,)`, float64; element k - 1 is the mean error of k rows.

    Raises:
        InputError: if there are no rows, lengths differ or a value is not finite.

    Example:

    >>> risk_coverage([0, 1, 0, 1], [0.1, 0.4, 0.2, 0.3])
    array([0.        , 0.        , 0.33333333, 0.5       ])
    """
    errors = _numbers("errors", errors)
    uncertainty = _numbers("uncertainty", uncertainty, len(errors))
    _, group, sizes = np.unique(uncertainty, return_inverse=True, return_counts=True)
    ordered = np.repeat(np.bincount(group, errors) / sizes, sizes)
    del group, sizes, uncertainty  # of millions of rows each takes its share of memory
    np.cumsum(ordered, out=ordered)
    ordered /= np.arange(1, len(errors) + 1)
    return ordered


def aurc(errors, uncertainty) -> float:
    """Area under the risk–coverage curve: mean risk over all coverages, 0 is best.

    Abstention at random has the area `mean(errors)`, an oracle, which refuses
    the largest errors first, `aurc(errors, errors)`.

    Args and errors as in `risk_coverage`.

    Example:

    >>> round(aurc([0, 1, 0, 1], [0.1, 0.4, 0.2, 0.3]), 4)
    0.2083

    Reference: Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty
    Estimation for Deep Neural Classifiers", 2019.
    """
    return float(risk_coverage(errors, uncertainty).mean())


def auroc(negative, positive) -> float:
    """Share of pairs in which the positive value is the larger one, a tie counting half.

    Args:
        negative: Values `(rows,)`, such as the uncertainty of known faces.
        positive: Values `(other rows,)` that should be larger.

    Raises:
        InputError: if there are no rows or a value is not finite.

    Example:

    >>> auroc([1, 2, 3], [3, 4])
    0.9166666666666666
    """
    negative = np.sort(_numbers("negative", negative))
    positive = _numbers("positive", positive)
    below = np.searchsorted(negative, positive, side="left")
    up_to = np.searchsorted(negative, positive, side="right")
    return float((below + up_to).mean() / 2 / len(negative))


def binomial_cdf(errors: int, rows: int, risk: float) -> float:
    """Probability of at most `errors` errors in `rows` rows that fail with probability `risk`.

    Example:

    >>> round(binomial_cdf(1, 10, 0.1), 6)
    0.736099
    """
    check_int("rows", rows, minimum=1)
    if check_int("errors", errors, minimum=0) >= rows or risk <= 0:
        return 1.0
    if risk >= 1:
        return 0.0
    k = np.arange(1, errors + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(rows - k + 1.0) - np.log(k))])
    k = np.arange(errors + 1)
    logs += k * math.log(risk) + (rows - k) * math.log1p(-risk)
    return float(min(np.exp(logs).sum(), 1.0))


def upper_risk(errors: int, rows: int, confidence: float) -> float:
    """Upper bound of Clopper and Pearson on the risk behind `errors` errors in `rows` rows.

    Example:

    >>> round(upper_risk(0, 45, 0.9), 4)
    0.0499
    """
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if binomial_cdf(errors, rows, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _numbers(name: str, values: Any, rows: int | None = None) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "biuf" or len(values) == 0:
        came = f"shape {values.shape}, dtype {values.dtype}"
        reject(name, "must hold one or more numbers, one per row", came)
    if rows is not None and len(values) != rows:
        reject(name, f"must hold {rows} rows", len(values))
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        reject(name, "must hold finite numbers", f"{values[row]} in row {row}")
    return values
