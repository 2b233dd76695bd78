"""Split-conformal age intervals: as wide as the rows kept back say that they must be."""

import math

import numpy as np

from kerasmlp.data.labels import NUM_YEARS
from kerasmlp.utils.checks import is_number, reject


def conformal_offset_years(
    age_years: np.ndarray, intervals: np.ndarray, coverage: float
) -> float | None:
    """By how much intervals must grow on both sides to hold a share of ages.

    The score of a row is `max(low - age, age - high)`, its distance to the
    interval, negative inside; the result is the ⌈(n + 1)·coverage⌉-th smallest
    of n scores. A further row drawn like these lies in its grown interval with
    a probability of at least `coverage`, whatever the model. Ages above 100
    count as 100, as everywhere.

    Args:
        age_years: `(rows,)`, of rows that the model was not trained on.
        intervals: Of the model, `(rows, 2)`.
        coverage: In (0, 1).

    Returns:
        Years, negative where intervals were too wide; None with too few rows
        for any finite offset (n < coverage / (1 - coverage)).

    Raises:
        InputError: if `coverage` is out of range.

    Example:

    >>> ages, intervals = np.arange(19.0), np.zeros((19, 2))
    >>> conformal_offset_years(ages, intervals, 0.9)
    17.0
    >>> conformal_offset_years(ages[:8], intervals[:8], 0.9) is None
    True

    Reference: Romano, Patterson and Candès, "Conformalized Quantile
    Regression", 2019.
    """
    if not is_number(coverage) or not 0 < coverage < 1:
        reject("coverage", "must be in (0, 1)", coverage)
    age_years = np.minimum(age_years, NUM_YEARS - 1)
    scores = np.sort(np.maximum(intervals[:, 0] - age_years, age_years - intervals[:, 1]))
    rank = conformal_rank(len(scores), coverage)
    return float(scores[rank - 1]) if rank <= len(scores) else None


def grown_interval_years(intervals: np.ndarray, offset_years: float | np.ndarray) -> np.ndarray:
    """Intervals `(rows, 2)` with both ends moved out, inside 0 to 100.

    One that shrinks to less than nothing becomes its middle. The offset is one number, or one
    for each row.

    Example:

    >>> grown_interval_years(np.array([[20.0, 30.0], [40.0, 41.0]]), -2.0)
    array([[22. , 28. ], [40.5, 40.5]])
    """
    middle = intervals.mean(axis=1, keepdims=True)
    half = np.diff(intervals, axis=1) / 2 + np.reshape(offset_years, (-1, 1))
    ends = middle + np.maximum(half, 0.0) * [-1, 1]
    return np.clip(ends, 0.0, NUM_YEARS - 1.0)


def conformal_rank(rows: int, coverage: float) -> int:
    """Which of so many sorted scores holds a further row with a share of `coverage`.

    More than there are rows, with too few of them.

    Example:

    >>> conformal_rank(9, 0.9), conformal_rank(8, 0.9)
    (9, 9)
    """
    # 0.9 · 10 must not become 10 by the last bit
    return math.ceil(round((rows + 1) * coverage, 9))
