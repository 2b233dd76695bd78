"""Measures of a ranking for many draws of its rows at once."""

import numpy as np


class RankedRows:
    """Rows from the surest on.

    Args:
        errors: Of each row, `(rows,)`.
        uncertainty: By which they are ranked, `(rows,)`.
        share: Of the surest rows, whose accuracy is the measure; None: the area `aurc`.

    Example:

    >>> from kerasmlp.uncertainty.selective import aurc
    >>> ranked = RankedRows(np.array([0.0, 1.0, 0.0]), np.array([0.1, 0.4, 0.2]))
    >>> twice_and_none = ranked.values(np.array([[2, 1, 0]]))
    >>> np.allclose(twice_and_none, aurc([0, 0, 1], [0.1, 0.1, 0.4]))
    True
    """

    def __init__(self, errors: np.ndarray, uncertainty: np.ndarray, share: float | None = None):
        self.order, self.share = np.argsort(uncertainty, kind="stable"), share
        self.errors = errors[self.order]
        ties = np.flatnonzero(np.diff(uncertainty[self.order]) == 0)
        self.starts = np.delete(np.arange(len(errors)), ties + 1)
        self.harmonic = np.zeros(1)

    def values(self, weights: np.ndarray) -> np.ndarray:
        """The measure where each row is there several times, or never; NaN of no rows.

        Rows of equal uncertainty count as their mean, as in `risk_coverage`.

        Args:
            weights: How often each row is there, `(draws, rows)`.
        """
        weights = weights[:, self.order]
        wrong = weights * self.errors
        if len(self.starts) < len(self.errors):
            wrong, weights = (np.add.reduceat(v, self.starts, axis=1) for v in (wrong, weights))
        after, sums = np.cumsum(weights, axis=1), np.cumsum(wrong, axis=1)
        before, sums = after - weights, sums - wrong
        mean = np.divide(wrong, weights, out=np.zeros_like(wrong), where=weights > 0)
        total = after[:, -1]
        with np.errstate(invalid="ignore"):
            if self.share is not None:
                k = np.maximum(np.round(self.share * total), 1)
                block = np.minimum((after < k[:, None]).sum(axis=1), after.shape[1] - 1)
                at = np.arange(len(k)), block
                risk = (sums[at] + mean[at] * (k - before[at])) / k
                return np.where(total > 0, 1 - risk, np.nan)
            harmonic = self._harmonic(int(total.max()))
            grown = harmonic[after.astype(int)] - harmonic[before.astype(int)]
            area = (sums * grown + mean * (weights - before * grown)).sum(axis=1)
            return area / np.where(total > 0, total, np.nan)

    def _harmonic(self, up_to: int) -> np.ndarray:
        if len(self.harmonic) <= up_to:
            self.harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, up_to + 1)))
        return self.harmonic
