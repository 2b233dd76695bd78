"""What a model answers for rows, and how good all of it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.labels import NUM_YEARS
from kerasmlp.evaluation import metrics
from kerasmlp.evaluation.measuring import measure
from kerasmlp.evaluation.number_measuring import measure_number_answers
from kerasmlp.runs.calibration import class_entropy_nats
from kerasmlp.runs.predictor import Predictor
from kerasmlp.uncertainty.selective import aurc, risk_coverage


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model answers for rows.

    Attributes:
        means: Probabilities of the head, `(rows, num_classes)`, or means and standard
            deviations, `(rows, 2)`.
        intervals: Of ages or numbers by percent, `(rows, 2)`; empty where no years are known.
        sets: Of the measured classes, a mask `(rows, classes)`, or None.
    """

    means: np.ndarray
    intervals: Mapping[int, np.ndarray] = field(default_factory=dict)
    sets: np.ndarray | None = None

    @classmethod
    def of(cls, predictor: Predictor, rows: Examples, model: str, means: np.ndarray) -> Answers:
        """Those of `deterministic` or `mc_mean`, with the intervals and sets of its run."""
        target = predictor.target
        how = {"sampled": model == "mc_mean", "columns": rows.labels}
        spread = target.is_number or (target.is_age and np.isfinite(rows.years).any())
        same = rows.target.classes == target.classes  # sets are of these classes
        return cls(
            means,
            predictor.intervals(means, **how) if spread else {},
            predictor.sets(means, **how) if same else None,
        )

    def subset(self, rows: np.ndarray) -> Answers:
        """Of the rows that an index or boolean array selects."""
        intervals = {percent: ends[rows] for percent, ends in self.intervals.items()}
        sets = None if self.sets is None else self.sets[rows]
        return Answers(self.means[rows], intervals, sets)


def measure_answers(rows: Examples, answers: Answers) -> dict:
    """Returns `measure`, with abstention by `class_entropy_nats`, age intervals and sets.

    Args:
        rows: With the label, all known.
        answers: For them.

    Returns:
        Also `aurc` beside `aurc_random` and `aurc_oracle`, in shares of wrong
        classes, `accuracy_at_80` (of the 80% most certain rows), and per
        interval `interval_90_coverage` and `interval_90_width_years`; of sets
        `set_90_coverage` and `set_90_size`, the mean number of classes. Of numbers
        see `measure_number_answers`.
    """
    means, intervals, sets = answers.means, answers.intervals, answers.sets
    if rows.target.is_number:
        return measure_number_answers(rows, means, intervals)
    result, wrong = measure(rows, means), rows.wrong(means)
    curve = risk_coverage(wrong, class_entropy_nats(rows.target, means))
    result |= {
        "aurc": float(curve.mean()),
        "aurc_random": float(wrong.mean()),
        "aurc_oracle": aurc(wrong, wrong),
        "accuracy_at_80": float(1 - curve[max(round(0.8 * len(curve)), 1) - 1]),
    }
    known = np.isfinite(rows.years)
    ages = np.minimum(rows.years[known], NUM_YEARS - 1)
    for percent, ends in intervals.items() if len(ages) else ():
        result[f"interval_{percent}_coverage"] = metrics.interval_coverage(ages, ends[known])
        result[f"interval_{percent}_width_years"] = metrics.interval_width(ends[known])
    if sets is not None:
        result["set_90_coverage"] = float(sets[np.arange(len(rows)), rows.targets].mean())
        result["set_90_size"] = float(sets.sum(axis=1).mean())
    return result
