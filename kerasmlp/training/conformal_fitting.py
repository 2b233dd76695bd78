"""Limits of intervals and sets, from rows kept back: of all of them, and of groups."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.data.targets import choose_target
from kerasmlp.runs.calibration import COVERAGES, SET_COVERAGE
from kerasmlp.runs.conformal_groups import (
    MIN_GROUP_ROWS,
    PREDICTED,
    SET,
    ConformalGroups,
    GroupLimits,
    group_names,
)
from kerasmlp.uncertainty.conformal import conformal_offset_years
from kerasmlp.uncertainty.measures import age_interval_years
from kerasmlp.uncertainty.numbers import conformal_quantiles
from kerasmlp.uncertainty.prediction_sets import conformal_set_threshold
from kerasmlp.utils.checks import InputError, reject

Limits = Callable[[Examples, np.ndarray], Mapping[str, float]]


def check_conformal_by(by: Sequence[str], rows: Examples, target: AnyTarget) -> None:
    """Rejects what rows cannot be told apart by when the model answers.

    Args:
        by: Columns, or `predicted`.
        rows: Of the training.
        target: What is learned.
    """
    for name in by:
        labels = {"age_years", "age_group"} if any(h.is_age for h in target.heads) else set()
        if name == PREDICTED:  # also where a column has this name
            if all(head.is_number for head in target.heads):
                reject("conformal_by", "must be columns where numbers are predicted", name)
        elif name in labels | {head.label for head in target.heads}:
            requirement = f"must be known when the model answers, or be {PREDICTED!r}"
            reject("conformal_by", requirement, f"{name!r}, which it predicts")
        else:
            try:
                choose_target(rows, name)
            except InputError:
                requirement = "must be columns of the store that hold classes, which rows share"
                reject("conformal_by", requirement, name)


def limits_of_classes(part: Examples, probabilities: np.ndarray) -> dict[str, float]:
    """Offsets of age intervals in years, as far as years are known, and the score of sets."""
    known = np.isfinite(part.years) & part.target.is_age
    limits: dict[str, float | None] = {}
    if known.sum():
        classes = np.asarray(part.target.head_ages.year_to_class)
        for c in COVERAGES:
            intervals = age_interval_years(probabilities[known], classes, c / 100)
            offset = conformal_offset_years(part.years[known], intervals, c / 100)
            limits[str(c)] = offset
    limits = {} if None in limits.values() else limits
    truth, measured = part.targets[part.known], part.target.measured(probabilities)[part.known]
    limits[SET] = conformal_set_threshold(truth, measured, SET_COVERAGE / 100)
    return {k: v for k, v in limits.items() if v is not None}


def limits_of_numbers(part: Examples, answers: np.ndarray) -> dict[str, float]:
    """Standard deviations that intervals reach.

    Args:
        answers: Mean and standard deviation, `(rows, 2)`.
    """
    return conformal_quantiles(part.targets, *answers.T) or {}


def fit_groups(
    part: Examples, of_model: Mapping[str, np.ndarray], by: Sequence[str], limits: Limits
) -> ConformalGroups | None:
    """The limits of each group of at least `MIN_GROUP_ROWS` rows, and of all others together.

    Of too few others the limits are the widest of any group, and of all rows. None where no
    groups are asked for.

    Args:
        part: Rows kept back.
        of_model: `deterministic`, `mc_mean` to answers.
        by: Columns, or `predicted`.
        limits: Of some rows and answers.
    """
    number = part.target.is_number
    by = tuple(name for name in by if not (number and name == PREDICTED))
    if not by:
        return None
    models = {}
    for model, answers in of_model.items():
        each = group_names(by, part.target, answers, part.labels)
        if each is None:  # of a student whose stores lack the column
            return None
        names = np.stack(each, axis=1)
        found, left = [], part.known.copy()
        for group, chosen in _groups(names, part):
            own = _enough(part.subset(chosen), limits(part.subset(chosen), answers[chosen]))
            if own:
                found.append(GroupLimits(tuple(map(str, group)), int(chosen.sum()), own))
                left &= ~chosen
        widest = _widest([limits(part, answers), *(one.limits for one in found)])
        if left.sum() >= MIN_GROUP_ROWS:
            widest |= _enough(part.subset(left), limits(part.subset(left), answers[left]))
        if widest:
            found.append(GroupLimits((), int(left.sum()), widest))
        models[model] = tuple(found)
    return ConformalGroups(by, models)


def _enough(part: Examples, limits: Mapping[str, float]) -> dict[str, float]:
    """Limits of a group without those of years that too few of its rows know."""
    of_years = part.target.is_age and np.isfinite(part.years).sum() < MIN_GROUP_ROWS
    return {k: v for k, v in limits.items() if k == SET or not of_years}


def _widest(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The largest of each limit."""
    return {k: max(limits[k] for limits in each if k in limits) for k in each[0]}


def _groups(names: np.ndarray, part: Examples):
    """The groups of known names that are large enough, with their rows (a mask)."""
    usable = part.known & (names != "").all(axis=1)
    values, codes, counts = np.unique(
        names[usable], axis=0, return_inverse=True, return_counts=True
    )
    rows = np.flatnonzero(usable)
    for k in np.flatnonzero(counts >= MIN_GROUP_ROWS):
        chosen = np.zeros(len(part), bool)
        chosen[rows[codes.ravel() == k]] = True
        yield values[k], chosen
