"""How far ages were off on the rows kept back, for any tolerance in years."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerasmlp.uncertainty.abstention import Abstention
from kerasmlp.utils.checks import check_positive, reject

MAX_ROWS = 4000


@dataclass(frozen=True)
class YearErrors:
    """Uncertainty and error of each row, from which thresholds follow for any tolerance.

    Attributes:
        entropy_nats: Of the distribution over the head's ages, one per row.
        error_years: Distance of the answer to the age, one per row.

    Raises:
        InputError: if the two do not fit together.

    Example:

    >>> errors = YearErrors([0.1, 0.5, 0.9], [2.0, 4.0, 9.0])
    >>> errors.within(5).errors, errors.within(3).errors
    ([0, 0, 1], [0, 1, 2])
    """

    entropy_nats: Sequence[float]
    error_years: Sequence[float]

    def __post_init__(self):
        columns = [np.asarray(v) for v in (self.entropy_nats, self.error_years)]
        good = columns[0].ndim == 1 and columns[0].shape == columns[1].shape and len(columns[0]) > 0
        good = good and all(c.dtype.kind in "iuf" and np.isfinite(c).all() for c in columns)
        if not good or (columns[1] < 0).any():
            reject("error_years", "must be one number >= 0 for each entropy", "others")

    @classmethod
    def fit(cls, entropy_nats: np.ndarray, error_years: np.ndarray) -> YearErrors | None:
        """Keeps evenly spaced rows, or all that there are; None of none."""
        if not len(error_years):
            return None
        rows = np.linspace(0, len(error_years) - 1, min(len(error_years), MAX_ROWS)).round()
        chosen = rows.astype(int)
        return cls(*(np.asarray(v, float)[chosen].tolist() for v in (entropy_nats, error_years)))

    def within(self, years: float) -> Abstention:
        """The counts where an answer is right if it is at most `years` off.

        Raises:
            InputError: if `years` is no number from 0 on.
        """
        check_positive("within_years", years, zero=True)
        return Abstention.fit(np.asarray(self.error_years) > years, np.asarray(self.entropy_nats))
