"""Whether rows are drawn like others: a test of all at once, and a bet against it row by row."""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Iterable

import numpy as np

_JUMPS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Shares of the capital that change their bet with each row; the last keeps it as it is."""

_HUGE = 1e100


def step_of(reference: np.ndarray) -> float:
    """How far apart scores may be that are equal but for rounding: a thousandth of their spread.

    What is computed anew, in other batches or by another program, has other last digits. Where
    many rows have one score these would decide on which side of it the others stand. So scores
    are compared in such steps.

    Args:
        reference: Of rows that are known, `(rows,)`.

    Example:

    >>> step_of(np.array([-1.0, 1.0])), step_of(np.array([5.0, 5.0]))
    (0.001, 5e-05)
    """
    largest = float(np.abs(reference).max())
    spread = float(np.std(reference / largest)) if largest else 0.0
    return max(spread / 1000, 1e-5) * largest or 1.0


def kolmogorov_smirnov(reference: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Tests whether two samples have one distribution.

    Args:
        reference: Of rows that are known, `(rows,)`.
        scores: Of others, `(rows,)`.

    Returns:
        The largest distance between the two distributions, and the probability of one as large
        by chance, by Kolmogorov's limit: too large rather than too small for few rows and ties.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> distance, p = kolmogorov_smirnov(rng.normal(size=1000), rng.normal(0.5, 1, size=200))
    >>> round(distance, 3), p < 1e-6
    (0.288, True)
    """
    reference, scores = np.sort(reference), np.sort(scores)
    both = np.concatenate([reference, scores])
    shares = [np.searchsorted(x, both, side="right") / len(x) for x in (reference, scores)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    rows = len(reference) * len(scores) / (len(reference) + len(scores))
    return distance, kolmogorov_tail(math.sqrt(rows) * distance)


def kolmogorov_tail(distance: float) -> float:
    """The probability that Kolmogorov's distribution exceeds a distance.

    Example:

    >>> round(kolmogorov_tail(1.3581), 4)
    0.05
    """
    if distance < 0.2:  # the series converges slowly to what is 1 to twelve digits
        return 1.0
    k = np.arange(1, 30)
    terms = np.exp(-2 * (k * distance) ** 2)
    return float(min(2 * (terms[::2].sum() - terms[1::2].sum()), 1.0))


class JumperMartingale:
    """Capital that bets against numbers being drawn evenly from [0, 1].

    It begins with 1. Of such numbers it exceeds 1 / α, ever, with a probability of at most α
    (Ville's inequality); of numbers that are mostly low, or mostly high, it grows
    exponentially. It is the mean of simple jumpers, which change sides slowly or fast.

    Example:

    >>> martingale = JumperMartingale()
    >>> for _ in range(60):
    ...     martingale.bet(0.02)
    >>> martingale.log10_capital > 6
    True

    Reference: Vovk et al., "Retrain or not retrain: conformal test martingales for
    change-point detection", 2021 (Simple and Composite Jumper).
    """

    def __init__(self):
        self._jumpers = [[1 / 3 / len(_JUMPS)] * 3 for _ in _JUMPS]  # bet low, not, high
        self._log10 = 0.0

    @property
    def log10_capital(self) -> float:
        return self._log10 + math.log10(sum(map(sum, self._jumpers)))

    def bet(self, p: float) -> None:
        """Bets on the next number, which is then told."""
        for jump, jumper in zip(_JUMPS, self._jumpers, strict=True):
            stays, shared = 1 - jump, jump * sum(jumper) / 3
            jumper[:] = (
                (stays * jumper[0] + shared) * (1.5 - p),
                stays * jumper[1] + shared,
                (stays * jumper[2] + shared) * (0.5 + p),
            )
        if (total := sum(map(sum, self._jumpers))) > _HUGE:
            self._jumpers = [[v / total for v in jumper] for jumper in self._jumpers]
            self._log10 += math.log10(total)


class ConformalStream:
    """Where each score stands among those that came before it.

    Of scores that come in no order, after those of a reference, `next` gives numbers that are
    drawn evenly from [0, 1] and each by itself, whatever their distribution.

    Args:
        reference: Scores to begin with.
        rng: Decides where among equal scores one stands.

    Example:

    >>> stream = ConformalStream([1.0, 2.0, 3.0], random.Random(0))
    >>> 0.75 < stream.next(0.0) <= 1, stream.next(9.0) < 0.2
    (True, True)

    Reference: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005,
    section 2.2 (smoothed conformal p-values).
    """

    def __init__(self, reference: Iterable[float], rng: random.Random):
        self._scores, self._rng = sorted(reference), rng

    def next(self, score: float) -> float:
        """The share of scores that are larger, the score itself among them."""
        above = len(self._scores) - bisect.bisect_right(self._scores, score)
        place = bisect.bisect_left(self._scores, score)
        equal = len(self._scores) - above - place + 1
        self._scores.insert(place, score)
        return (above + self._rng.random() * equal) / len(self._scores)
