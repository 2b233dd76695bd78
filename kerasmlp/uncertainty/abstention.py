from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerasmlp.uncertainty.selective import binomial_cdf, upper_risk
from kerasmlp.utils.checks import is_number, reject

CONFIDENCE = 0.9
MAX_POINTS = 1000


@dataclass(frozen=True)
class Abstention:
    """From the risk a user accepts to the uncertainty above which nothing is answered.

    It holds, for rising thresholds, how many rows lay at or below each and
    how many of those were wrong. The share of errors among them is no promise:
    of many thresholds the one that was lucky would be taken, the more so with
    few rows. A threshold is therefore taken only if a binomial test says, with
    a confidence of 0.9, that the risk behind it is low enough. The search
    halves the thresholds, so that only about log2 of them are tested, and each
    test gets its share of the 0.1. Hence few rows allow only high risks: 45
    rows without one error are just enough for a single test of 0.05.

    Attributes:
        thresholds: Rising, at least one, such as entropies in nats.
        rows: Rows at or below each, rising.
        errors: Wrong ones among them.

    Raises:
        InputError: if the three do not fit together.

    Example:

    >>> uncertainty = np.linspace(0, 1, 1000)
    >>> errors = np.random.default_rng(0).random(1000) < uncertainty**3
    >>> abstention = Abstention.fit(errors, uncertainty)
    >>> threshold = abstention.threshold(0.05)
    >>> bool(errors[uncertainty <= threshold].mean() < 0.05)
    True
    >>> abstention.threshold(0.001) is None
    True

    Reference: Geifman and El-Yaniv, "Selective Classification for Deep Neural
    Networks", 2017, algorithm 1.
    """

    thresholds: Sequence[float]
    rows: Sequence[int]
    errors: Sequence[int]

    def __post_init__(self):
        columns = [np.asarray(v) for v in (self.thresholds, self.rows, self.errors)]
        good = len({c.shape for c in columns}) == 1 and columns[0].ndim == 1 and len(self.rows) > 0
        good = good and columns[0].dtype.kind in "iuf" and np.isfinite(columns[0]).all()
        good = good and all(c.dtype.kind in "iu" for c in columns[1:])
        good = good and all((np.diff(c) >= 0).all() for c in columns)
        if not good or not (columns[2] >= 0).all() or not (columns[2] <= columns[1]).all():
            reject("thresholds", "must be numbers that rise, as rows and errors do", "others")

    @classmethod
    def fit(cls, errors: np.ndarray, uncertainty: np.ndarray) -> Abstention:
        """Counts on rows that the model has not seen.

        Args:
            errors: Whether each row is wrong, `(rows,)`.
            uncertainty: `(rows,)`, higher is less sure.
        """
        thresholds, group, sizes = np.unique(uncertainty, return_inverse=True, return_counts=True)
        rows = np.cumsum(sizes)
        wrong = np.cumsum(np.bincount(group, errors)).round().astype(int)
        kept = np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS)).round().astype(int)
        return cls(*(v[kept].tolist() for v in (thresholds, rows, wrong)))

    def threshold(self, max_risk: float) -> float | None:
        """The largest threshold found whose risk is at most `max_risk`, or None.

        Raises:
            InputError: if `max_risk` is out of (0, 1).
        """
        if not is_number(max_risk) or not 0 < max_risk < 1:
            reject("max_risk", "must be in (0, 1)", max_risk)
        passed, failed = -1, len(self.rows)
        while failed - passed > 1:
            middle = (passed + failed) // 2
            chance = binomial_cdf(self.errors[middle], self.rows[middle], max_risk)
            if chance <= self._level:
                passed = middle
            else:
                failed = middle
        return None if passed < 0 else self.thresholds[passed]

    def lowest_risk(self) -> float:
        """The smallest risk that some threshold is good for."""
        lowest, failed = 1.0, len(self.rows)
        while failed > 0:  # the tests that are made while all fail
            failed = (failed - 1) // 2
            bound = upper_risk(self.errors[failed], self.rows[failed], 1 - self._level)
            lowest = min(lowest, bound)
        return lowest

    @property
    def _level(self) -> float:
        return (1 - CONFIDENCE) / max(math.ceil(math.log2(len(self.rows) + 1)), 1)
