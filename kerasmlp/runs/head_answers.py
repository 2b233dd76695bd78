"""Answers of one head, row by row, from the means of its passes."""

from collections.abc import Iterator, Mapping

import numpy as np

from kerasmlp.data.other_targets import AnyTarget, NumberTarget
from kerasmlp.data.targets import Target
from kerasmlp.uncertainty.measures import expected_age_years, median_age_years
from kerasmlp.utils.checks import reject_column

_FIELDS = frozenset(
    (
        *("input", "row", "unit", "probability", "probabilities", "uncertainty"),
        *("uncertainty_limit", "abstained", "class_entropy_nats", "interval_50", "interval_90"),
        "set_90",
        *("total_std", "aleatoric_std", "epistemic_std"),
    )
)
"""What stands beside the label in an answer."""


def check_label_names(target: AnyTarget) -> None:
    """Rejects labels whose answer would stand under the name of something else."""
    for head in target.heads:
        if head.label in _FIELDS:
            requirement = "must have another name: an answer holds something else under it"
            reject_column(head.label, requirement, "a label of this name")


def class_answers(
    target: Target,
    mean: np.ndarray,
    intervals: Mapping[int, np.ndarray],
    sets: np.ndarray | None = None,
) -> list[dict]:
    """The likeliest class with its probability, and of ages the age with its intervals.

    Args:
        target: Of the head.
        mean: Probabilities, `(rows, num_classes)`.
        intervals: Of ages by percent, `(rows, 2)`.
        sets: Of the measured classes, a mask `(rows, classes)`, or None.
    """
    measured = target.measured(mean)
    winners = measured.argmax(axis=1)
    answers = [
        {
            "age_group" if target.is_age else target.label: target.measured_names[k],
            "probability": float(measured[i, k]),
        }
        for i, k in enumerate(winners)
    ]
    if target.is_age:
        ages = target.head_ages
        columns = {
            "age_years": expected_age_years(mean, ages.centers),
            "age_median_years": median_age_years(mean, np.asarray(ages.year_to_class)),
            **{f"age_interval_{percent}": ends for percent, ends in intervals.items()},
        }
        for i, answer in enumerate(answers):
            answer |= {k: v[i].tolist() for k, v in columns.items()}
    else:
        for answer, row in zip(answers, mean, strict=True):
            named = zip(target.class_names, row.tolist(), strict=True)
            answer["probabilities"] = dict(named)
    for answer, p, chosen in zip(answers, measured, () if sets is None else sets, strict=False):
        order = np.argsort(-p, kind="stable")
        answer["set_90"] = [target.measured_names[k] for k in order if chosen[k]]
    return answers


def number_answers(
    target: NumberTarget,
    mean: np.ndarray,
    intervals: Mapping[int, np.ndarray],
    measures: Mapping[str, np.ndarray],
    spread: float,
) -> Iterator[dict]:
    """Numbers with their standard deviations and intervals.

    Args:
        target: Of the head.
        mean: With the standard deviation of the prediction, `(rows, 2)`.
        intervals: By percent, `(rows, 2)`.
        measures: Parts of the standard deviation, `(rows,)`.
        spread: Standard deviation of the numbers trained on.
    """
    for i, (number, std) in enumerate(mean.astype(float)):
        yield {
            target.label: float(number),
            "unit": target.unit,
            "total_std": float(std),
            **{k: float(v[i]) for k, v in measures.items()},
            **{f"interval_{percent}": ends[i].tolist() for percent, ends in intervals.items()},
            "uncertainty": float(min(std / spread, 1.0)),
        }


def beside(
    chunks: Iterator[dict], columns: Mapping[str, np.ndarray] | None
) -> Iterator[tuple[dict, Mapping[str, np.ndarray] | None]]:
    """Each chunk with the labels of its rows."""
    start = 0
    for chunk in chunks:
        rows = slice(start, start := start + len(chunk["mean"]))
        yield chunk, columns and {name: column[rows] for name, column in columns.items()}


def emptied(answer: dict) -> dict:
    """An answer that is withheld: its fields, with nothing in them."""
    return {k: emptied(v) if isinstance(v, dict) else None for k, v in answer.items()}
