"""How good predicted numbers and their intervals are."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.evaluation import metrics
from kerasmlp.evaluation.measuring import measure
from kerasmlp.uncertainty.selective import aurc

STDS = ("total_std", "aleatoric_std", "epistemic_std")
"""The measures of uncertainty of a number, which grow with it."""


def measure_number_answers(
    rows: Examples, answers: np.ndarray, intervals: Mapping[int, np.ndarray]
) -> dict:
    """Returns `measure` of numbers, with their intervals and how well the spread ranks errors.

    Args:
        rows: With numbers, all known.
        answers: Mean and standard deviation, `(rows, 2)`.
        intervals: By percent, `(rows, 2)`.

    Returns:
        Also `aurc`, the mean absolute error over all shares of rows that are answered, the
        surest first, beside `aurc_random` and `aurc_oracle`, and per interval
        `interval_90_coverage` and `interval_90_width`, in the unit of the label.
    """
    errors = np.abs(rows.targets - answers[:, 0])
    result = measure(rows, answers) | {
        "aurc": aurc(errors, answers[:, 1]),
        "aurc_random": float(errors.mean()),
        "aurc_oracle": aurc(errors, errors),
    }
    for percent, ends in intervals.items():
        result[f"interval_{percent}_coverage"] = metrics.interval_coverage(rows.targets, ends)
        result[f"interval_{percent}_width"] = metrics.interval_width(ends)
    return result


def normal_coverages(
    numbers: np.ndarray, answers: np.ndarray, percents: Sequence[int]
) -> list[float]:
    """The share of numbers in the central intervals of predicted normal distributions.

    Args:
        numbers: True ones, `(rows,)`.
        answers: Mean and standard deviation, `(rows, 2)`.
        percents: Nominal coverages.

    Example:

    >>> normal_coverages(np.array([0.0, 2.0]), np.array([[0.0, 1.0], [0.0, 1.0]]), [50, 99])
    [0.5, 1.0]
    """
    scores = np.abs(numbers - answers[:, 0]) / answers[:, 1]
    reach = [NormalDist().inv_cdf((1 + percent / 100) / 2) for percent in percents]
    return [float((scores <= r).mean()) for r in reach]
