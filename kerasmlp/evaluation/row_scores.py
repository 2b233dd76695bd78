"""What each row adds to every measure of `evaluate`, from which those of any part follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.labels import NUM_YEARS
from kerasmlp.evaluation import metrics
from kerasmlp.runs.calibration import class_entropy_nats
from kerasmlp.uncertainty.measures import expected_age_years
from kerasmlp.uncertainty.selective import risk_coverage


def _alone(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


@dataclass(frozen=True, eq=False)
class MeanScore:
    """A measure that follows from means over rows.

    Attributes:
        columns: What the means are of, `(rows, k)`; NaN in rows that do not count.
        of: The measure of such means, `(..., k)` to `(...)`.

    Example:

    >>> errors = np.array([[3.0], [4.0], [np.nan]])
    >>> MeanScore(errors**2, lambda means: np.sqrt(means[..., 0])).value(np.array([0, 2]))
    3.0
    """

    columns: np.ndarray
    of: Callable[[np.ndarray], np.ndarray] = _alone

    @property
    def known(self) -> np.ndarray:
        """Mask of the rows that count."""
        return ~np.isnan(self.columns[:, 0])

    @property
    def is_share(self) -> bool:
        """Whether it counts rows: each adds 0 or 1."""
        known = self.columns[self.known]
        return self.of is _alone and bool(((known == 0) | (known == 1)).all())

    def value(self, chosen: np.ndarray) -> float:
        """The measure of some rows; NaN where none of them counts."""
        rows = self.columns[chosen]
        rows = rows[~np.isnan(rows[:, 0])]
        return float(self.of(rows.mean(axis=0))) if len(rows) else np.nan


@dataclass(frozen=True, eq=False)
class RankScore:
    """A measure of how well an uncertainty ranks errors, which every row counts for.

    Attributes:
        errors: Of each row, `(rows,)`.
        uncertainty: By which they are ranked, `(rows,)`.
        share: Of the surest rows, whose accuracy it is; None: the area `aurc`.
    """

    errors: np.ndarray
    uncertainty: np.ndarray
    share: float | None = None

    @property
    def is_share(self) -> bool:
        """Whether errors are counted: the area is one of shares then, too."""
        return bool(((self.errors == 0) | (self.errors == 1)).all())

    def value(self, chosen: np.ndarray) -> float:
        """The measure of some rows; NaN of none."""
        if not len(chosen):
            return np.nan
        curve = risk_coverage(self.errors[chosen], self.uncertainty[chosen])
        if self.share is None:
            return float(curve.mean())
        return float(1 - curve[max(round(self.share * len(curve)), 1) - 1])


Score = MeanScore | RankScore
Answers = tuple[np.ndarray, Mapping[int, np.ndarray], np.ndarray | None]
"""Of a model to rows: its outputs, intervals by percent, and sets of classes or None."""


def row_scores(
    rows: Examples,
    answers: np.ndarray,
    intervals: Mapping[int, np.ndarray],
    sets: np.ndarray | None = None,
) -> dict[str, Score]:
    """Every measure of `measure_answers`, by rows.

    Args:
        rows: With the label, all known.
        answers: Probabilities of the head, or means and standard deviations.
        intervals: By percent, `(rows, 2)`; empty where no years are known.
        sets: Of the measured classes, a mask `(rows, classes)`, or None.
    """
    scores = _of_numbers(rows, answers) if rows.target.is_number else _of_classes(rows, answers)
    truths, unit = rows.targets, ""
    if not rows.target.is_number:
        truths, unit = np.minimum(rows.years, NUM_YEARS - 1), "_years"
    known = np.isfinite(truths)
    for percent, (low, high) in ((p, ends.T) for p, ends in intervals.items() if known.any()):
        inside = (low <= truths) & (truths <= high)
        scores[f"interval_{percent}_coverage"] = _mean(np.where(known, inside, np.nan))
        scores[f"interval_{percent}_width{unit}"] = _mean(np.where(known, high - low, np.nan))
    if sets is not None:
        scores["set_90_coverage"] = _mean(sets[np.arange(len(rows)), rows.targets])
        scores["set_90_size"] = _mean(sets.sum(axis=1))
    return scores


def _mean(values: np.ndarray) -> MeanScore:
    return MeanScore(np.asarray(values, np.float64)[:, None])


def _root(means: np.ndarray) -> np.ndarray:
    return np.sqrt(means[..., 0])


def _explained(means: np.ndarray) -> np.ndarray:
    """R² of means of squared errors, numbers and their squares."""
    squares, number, square = np.moveaxis(means, -1, 0)
    varied = square - number**2
    none = np.full(np.shape(varied), np.nan)
    return 1 - np.divide(squares, varied, out=none, where=varied > 1e-12 * square)


def distance(means: np.ndarray) -> np.ndarray:
    """The sum of absolute means: the expected calibration error of gaps by bin."""
    return np.abs(means).sum(axis=-1)


def _of_numbers(rows: Examples, answers: np.ndarray) -> dict[str, Score]:
    mean, std = np.asarray(answers, np.float64).T
    errors, centered = rows.targets - mean, rows.targets - rows.targets.mean()
    away = np.abs(errors)
    return {
        "rmse": MeanScore(errors[:, None] ** 2, _root),
        "mae": _mean(away),
        "r2": MeanScore(np.stack([errors**2, centered, centered**2], axis=1), _explained),
        "nll": _mean(0.5 * (errors / std) ** 2 + np.log(std) + 0.5 * np.log(2 * np.pi)),
        "aurc": RankScore(away, std),
        "aurc_random": _mean(away),
        "aurc_oracle": RankScore(away, away),
    }


def _of_classes(rows: Examples, probabilities: np.ndarray) -> dict[str, Score]:
    target, labels, scores = rows.target, rows.targets, {}
    measured = target.measured(np.asarray(probabilities, np.float64))
    predicted, confidence = measured.argmax(axis=1), measured.max(axis=1)
    right = predicted == labels
    if target.is_age and np.isfinite(rows.years).any():
        scores |= _of_years(rows, probabilities)
    if target.classes != "years":
        scores["accuracy"] = _mean(right)
    if target.is_age:
        scores["one_off_accuracy"] = _mean(np.abs(predicted - labels) <= 1)
    each = np.arange(len(labels))
    scores["nll"] = _mean(-np.log(np.maximum(measured[each, labels], metrics.MIN_PROBABILITY)))
    one_hot = np.eye(measured.shape[1])[labels]
    scores["brier"] = _mean(np.square(measured - one_hot).sum(axis=1))
    gaps = np.zeros((len(labels), metrics.NUM_BINS))
    gaps[each, metrics.confidence_bins(confidence)] = right - confidence
    scores["ece"] = MeanScore(gaps, distance)
    wrong, entropy = (~right).astype(float), class_entropy_nats(target, probabilities)
    scores["aurc"] = RankScore(wrong, entropy)
    scores["aurc_random"] = _mean(wrong)
    scores["aurc_oracle"] = RankScore(wrong, wrong)
    scores["accuracy_at_80"] = RankScore(wrong, entropy, 0.8)
    return scores


def _of_years(rows: Examples, probabilities: np.ndarray) -> dict[str, Score]:
    ages, years = rows.target.head_ages, rows.years.astype(np.float64)
    away = np.abs(expected_age_years(probabilities, ages.centers) - years)
    unknown = np.isnan(years)
    scores = {
        "mae_years": _mean(away),
        "cumulative_score_5": _mean(np.where(unknown, np.nan, away <= 5)),
    }
    if rows.target.head == "years":
        exact = probabilities.argmax(axis=1) == ages.encode(years)
        scores["exact_year_accuracy"] = _mean(np.where(unknown, np.nan, exact))
    return scores
