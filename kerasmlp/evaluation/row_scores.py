"""What each row adds to every measure of `evaluate`, from which those of any part follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.labels import NUM_YEARS
from kerasmlp.evaluation import metrics
from kerasmlp.evaluation.measured_answers import Answers
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
        is_share: Whether it is a share of rows: each adds 0 or 1.

    Example:

    >>> errors = np.array([[3.0], [4.0], [np.nan]])
    >>> MeanScore(errors**2, lambda means: np.sqrt(means[..., 0])).value(np.array([0, 2]))
    3.0
    """

    columns: np.ndarray
    of: Callable[[np.ndarray], np.ndarray] = _alone
    is_share: bool = False

    @property
    def known(self) -> np.ndarray:
        """Mask of the rows that count."""
        return ~np.isnan(self.columns[:, 0])

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
        is_share: Whether errors are 0 or 1: the area is one of shares, too.
    """

    errors: np.ndarray
    uncertainty: np.ndarray
    share: float | None = None
    is_share: bool = False

    def value(self, chosen: np.ndarray) -> float:
        """The measure of some rows; NaN of none."""
        if not len(chosen):
            return np.nan
        curve = risk_coverage(self.errors[chosen], self.uncertainty[chosen])
        if self.share is None:
            return float(curve.mean())
        return float(1 - curve[max(round(self.share * len(curve)), 1) - 1])


Score = MeanScore | RankScore


def row_scores(rows: Examples, answers: Answers) -> dict[str, Score]:
    """Every measure of `measure_answers`, by rows.

    Args:
        rows: With the label, all known.
        answers: For them.
    """
    number = rows.target.is_number
    scores = (_of_numbers if number else _of_classes)(rows, answers.means)
    truths = rows.targets if number else np.minimum(rows.years, NUM_YEARS - 1)
    known, unit = np.isfinite(truths), "" if number else "_years"
    for percent, ends in answers.intervals.items() if known.any() else ():
        low, high = ends.T
        inside = (low <= truths) & (truths <= high)
        scores[f"interval_{percent}_coverage"] = _share(np.where(known, inside, np.nan))
        scores[f"interval_{percent}_width{unit}"] = _mean(np.where(known, high - low, np.nan))
    if not number and answers.sets is not None:
        scores["set_90_coverage"] = _share(answers.sets[np.arange(len(rows)), rows.targets])
        scores["set_90_size"] = _mean(answers.sets.sum(axis=1))
    return scores


def _share(values: np.ndarray) -> MeanScore:
    return MeanScore(np.asarray(values, np.float64)[:, None], is_share=True)


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
        scores["accuracy"] = _share(right)
    if target.is_age:
        scores["one_off_accuracy"] = _share(np.abs(predicted - labels) <= 1)
    each = np.arange(len(labels))
    scores["nll"] = _mean(-np.log(np.maximum(measured[each, labels], metrics.MIN_PROBABILITY)))
    one_hot = np.eye(measured.shape[1])[labels]
    scores["brier"] = _mean(np.square(measured - one_hot).sum(axis=1))
    gaps = np.zeros((len(labels), metrics.NUM_BINS))
    gaps[each, metrics.confidence_bins(confidence)] = right - confidence
    scores["ece"] = MeanScore(gaps, distance)
    wrong, entropy = (~right).astype(float), class_entropy_nats(target, probabilities)
    scores["aurc"] = RankScore(wrong, entropy, is_share=True)
    scores["aurc_random"] = _share(wrong)
    scores["aurc_oracle"] = RankScore(wrong, wrong, is_share=True)
    scores["accuracy_at_80"] = RankScore(wrong, entropy, 0.8, is_share=True)
    return scores


def _of_years(rows: Examples, probabilities: np.ndarray) -> dict[str, Score]:
    ages, years = rows.target.head_ages, rows.years.astype(np.float64)
    away = np.abs(expected_age_years(probabilities, ages.centers) - years)
    unknown = np.isnan(years)
    scores = {
        "mae_years": _mean(away),
        "cumulative_score_5": _share(np.where(unknown, np.nan, away <= 5)),
    }
    if rows.target.head == "years":
        exact = probabilities.argmax(axis=1) == ages.encode(years)
        scores["exact_year_accuracy"] = _share(np.where(unknown, np.nan, exact))
    return scores
