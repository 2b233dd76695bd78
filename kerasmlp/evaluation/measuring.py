"""Measures a model on rows: overall and per group of people."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.labelled import parts_of
from kerasmlp.data.labels import GENDER_NAMES, is_unknown
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import Target, choose_age_target, truth_years
from kerasmlp.evaluation import metrics
from kerasmlp.uncertainty.measures import expected_age_years
from kerasmlp.utils.checks import InputError, reject, reject_column

MEASURES = (
    "rmse", "mae", "r2", "mae_years", "accuracy", "exact_year_accuracy", "one_off_accuracy", "nll",
    "brier", "ece",
)  # fmt: skip
"""What is told of a finished training, in this order."""


def measure(rows: Examples, probabilities: np.ndarray) -> dict:
    """Returns the metrics of a head's probabilities `(rows, num_classes)` where the label is known.

    Returns:
        Of numbers, see `measure_numbers`. Else
        `rows`, `accuracy`, `nll`, `brier`, `ece`, in the measured classes; for
        ages also `one_off_accuracy` and, where years are known, `mae_years`,
        `cumulative_score_5` and, of a head of years, `exact_year_accuracy`: the
        latter stands alone, without `accuracy`, where single years are the classes.

    Raises:
        InputError: if no row holds the label.
    """
    target, known = require_known(rows), rows.known
    if target.is_number:
        return measure_numbers(rows.targets[known], probabilities[known])
    labels, measured = rows.targets[known], target.measured(probabilities)[known]
    predicted = measured.argmax(axis=1)
    result = {"rows": int(known.sum())}
    if target.is_age:
        result |= _of_years(rows, probabilities)
    if target.classes != "years":
        result["accuracy"] = metrics.accuracy(labels, predicted)
    if target.is_age:
        result["one_off_accuracy"] = metrics.one_off_accuracy(labels, predicted)
    result |= {name: getattr(metrics, name)(labels, measured) for name in ("nll", "brier", "ece")}
    return {k: v if isinstance(v, int) else float(v) for k, v in result.items()}


def measure_numbers(numbers: np.ndarray, answers: np.ndarray) -> dict:
    """Returns the metrics of predicted normal distributions, in the unit of the label.

    Args:
        numbers: True ones, `(rows,)`.
        answers: Mean and standard deviation, `(rows, 2)`.

    Returns:
        `rows`, `rmse`, `mae`, `r2` (NaN where the numbers are all the same is left out) and
        `nll`, nats of the density.

    Example:

    >>> measured = measure_numbers(np.array([1.0, 3.0]), np.array([[1.0, 1.0], [2.0, 1.0]]))
    >>> measured["mae"], measured["r2"], round(measured["nll"], 4)
    (0.5, 0.5, 1.1689)
    """
    mean, std = np.asarray(answers, np.float64).T
    errors, varied = numbers - mean, numbers.var()
    result = {
        "rows": len(numbers),
        "rmse": np.sqrt(np.mean(errors**2)),
        "mae": np.abs(errors).mean(),
    }
    if varied > 0:
        result["r2"] = 1 - np.mean(errors**2) / varied
    result["nll"] = np.mean(0.5 * (errors / std) ** 2 + np.log(std) + 0.5 * np.log(2 * np.pi))
    return {k: v if isinstance(v, int) else float(v) for k, v in result.items()}


def require_known(rows: Examples) -> Target:
    """The target of rows, of which at least one must hold the label."""
    if not rows.known.any():
        requirement = "must be known in at least one row of the store"
        reject_column(rows.target.label, requirement, "none")
    return rows.target


def _of_years(rows: Examples, probabilities: np.ndarray) -> dict:
    """What only ages in years can tell; leads a report."""
    known = np.isfinite(rows.years)
    if not known.any():
        return {}
    ages, years, probabilities = rows.target.head_ages, rows.years[known], probabilities[known]
    age_years = expected_age_years(probabilities, ages.centers)
    result = {
        "mae_years": metrics.mae_years(years, age_years),
        "cumulative_score_5": metrics.cumulative_score(years, age_years, 5),
    }
    if rows.target.head == "years":
        predicted = probabilities.argmax(axis=1)
        result["exact_year_accuracy"] = metrics.accuracy(ages.encode(years), predicted)
    return result


def with_classes(target: Target, classes: str) -> Target:
    """The same head measured in other age classes; only a head of years can be regrouped."""
    if classes != target.classes and target.head != "years":
        reject("classes", f"must be {target.classes!r}, which the model was trained on", classes)
    return Target(target.label, target.class_names, target.head, classes)


def fitting_classes(target: Target, store: EmbeddingStore, classes: str | None) -> Target:
    """The target in the asked age classes, or in those that a store of groups allows."""
    if classes is not None:
        return with_classes(target, classes)
    if target.head == "years" and truth_years(store) is None and "age_group" in store.labels:
        groups = choose_age_target(store, "age_group", None, by_years=True).classes
        return with_classes(target, groups)
    return target


def groups_of_people(rows: Examples) -> Iterator[tuple[dict[str, str], np.ndarray]]:
    """Yields the names and rows (a mask) of each age group × gender that is known.

    The groups are those that are measured; where that is single years or no
    age at all, those that the store names, or Adience's. Rows without the
    label are in none.
    """
    age_groups, genders = _age_groups(rows), rows.labels.get("gender")
    names = GENDER_NAMES if genders is not None else ("all",)
    for k, age_group in enumerate(age_groups[0] if age_groups else ("all",)):
        for g, gender in enumerate(names):
            chosen = rows.known
            if age_groups:
                chosen = chosen & (age_groups[1] == k)
            if genders is not None:
                chosen = chosen & (genders == g)
            if chosen.any():
                yield {"age_group": age_group, "gender": gender}, chosen


def people_and_races(rows: Examples) -> Iterator[tuple[dict[str, str], np.ndarray]]:
    """The groups of `groups_of_people`, then each race that is known, with their rows (a mask)."""
    for names, chosen in groups_of_people(rows):
        yield {**names, "race": "all"}, chosen
    race = rows.labels.get("race", np.array([], str))
    for value in np.unique(race[~is_unknown(race)]):
        yield {"age_group": "all", "gender": "all", "race": str(value)}, race == value


def measure_groups(rows: Examples, probabilities: np.ndarray) -> list[dict]:
    """Returns the metrics of each group of `groups_of_people`."""
    return [
        {**names, **measure(rows.subset(chosen), probabilities[chosen])}
        for names, chosen in groups_of_people(rows)
    ]


def measure_files(rows: Examples, probabilities: np.ndarray) -> dict[str, dict]:
    """The metrics on the rows of each file of a joined store that has the label; else nothing."""
    masks = {file: mask & rows.known for file, mask in parts_of(rows).items()}
    return {
        file: measure(rows.subset(mask), probabilities[mask])
        for file, mask in masks.items()
        if mask.any()
    }


def _age_groups(rows: Examples) -> tuple[tuple[str, ...], np.ndarray] | None:
    if rows.target.is_age and rows.target.classes != "years":
        return rows.target.measured_names, rows.targets
    classes = "adience" if truth_years(rows) is not None else None
    try:
        target = choose_age_target(rows, None, classes, by_years=False)
        return target.class_names, target.encode(rows)
    except InputError:  # no ages, or groups whose names say nothing
        return None


def groups_table(rows: list[dict]) -> str:
    """The metrics per group as a short text table, led by the error in years where it is known."""
    there = {key for row in rows for key in row}
    accuracy = "accuracy" if "accuracy" in there else "exact_year_accuracy"
    shown = [c for c in ("rows", "rmse", "mae_years", accuracy, "nll") if c in there]
    columns = {c: max(12, len(c)) for c in (*named_groups(rows), *shown)}
    lines = [" ".join(f"{c:>{width}}" for c, width in columns.items())]
    for row in rows:
        cells = ((rounded(c, row.get(c, "")), width) for c, width in columns.items())
        lines.append(" ".join(f"{cell:>{width}}" for cell, width in cells))
    return "\n".join(lines)


def named_groups(rows: Sequence[dict]) -> list[str]:
    """The columns that tell groups apart: a store without ages has no age groups to name."""
    columns = ("age_group", "gender", "race")
    return [c for c in columns if any(row.get(c, "all") != "all" for row in rows)]


def measures_table(results: Mapping[str, dict], names: Sequence[str]) -> str:
    """Measures of one or more models or parts side by side; what nobody has is left out."""
    shown = [name for name in names if any(name in result for result in results.values())]
    first, width = max(map(len, ("", *shown))) + 1, max(map(len, ("", *results))) + 2
    lines = [f"{'':>{first}}" + "".join(f"{name:>{width}}" for name in results)]
    for name in shown:
        cells = (rounded(name, result.get(name, "")) for result in results.values())
        lines.append(f"{name:>{first}}" + "".join(f"{cell:>{width}}" for cell in cells))
    return "\n".join(lines)


def rounded(name: str, value: float | int | str) -> str:
    """A number as people read it: years to a hundredth, all else to a thousandth.

    Example:

    >>> rounded("mae_years", 6.538012), rounded("accuracy", 0.5775), rounded("rows", 1200)
    ('6.54', '0.578', '1200')
    """
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if name.endswith("_years") else f"{value:.3f}"
