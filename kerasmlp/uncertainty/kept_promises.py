"""Whether rows with labels agree with a promise of coverage or risk: exact tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from kerasmlp.uncertainty.conformal import conformal_rank
from kerasmlp.uncertainty.selective import binomial_cdf


def beta_binomial(rows: int, a: int, b: int) -> np.ndarray:
    """The probabilities of 0 to `rows` hits of rows that hit with one unknown probability.

    Args:
        rows: At least 1.
        a, b: Of the beta distribution that this probability is drawn from, above 0.

    Example:

    >>> beta_binomial(2, 1, 1).round(4)
    array([0.3333, 0.3333, 0.3333])
    """
    k = np.arange(rows, dtype=np.float64)
    steps = np.log(rows - k) - np.log(k + 1) + np.log(a + k) - np.log(b + rows - k - 1)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    chances = np.exp(logs - logs.max())
    return chances / chances.sum()


def chance_of_coverage(
    hits: int, groups: Sequence[tuple[int, int]], coverage: float
) -> float | None:
    """How likely so few hits, or fewer, are where conformal limits keep their promise.

    Limits that are the r-th smallest of n scores cover further rows with a probability of which
    the distribution is known, Beta(r, n + 1 - r), or a higher one where scores are equal.

    Args:
        hits: Rows whose limits hold the truth.
        groups: Of each group with limits of its own: such rows, and rows kept back.
        coverage: Promised, in (0, 1).

    Returns:
        None where there is no row with a promise.

    Example:

    >>> round(chance_of_coverage(85, [(100, 1000)], 0.9), 4)
    0.0818
    >>> chance_of_coverage(0, [(100, 5)], 0.9) is None
    True

    Reference: Angelopoulos and Bates, "A Gentle Introduction to Conformal Prediction and
    Distribution-Free Uncertainty Quantification", 2021, section 3.2.
    """
    parts = []
    for rows, kept_back in groups:
        rank = conformal_rank(kept_back, coverage)
        if rows and rank <= kept_back:
            parts.append(beta_binomial(rows, rank, kept_back + 1 - rank))
    if not parts:
        return None
    return float(min(reduce(np.convolve, parts)[: hits + 1].sum(), 1.0))


def chance_of_risk(errors: int, rows: int, risk: float) -> float:
    """How likely so many errors, or more, are in rows of which a share `risk` at most is wrong.

    Example:

    >>> round(chance_of_risk(9, 100, 0.05), 4)
    0.0631
    """
    return 1.0 if errors == 0 else 1.0 - binomial_cdf(errors - 1, rows, risk)
