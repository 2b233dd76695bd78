"""Measures a model on a store: overall and per group of people."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kerasmlp import metrics
from kerasmlp.checks import InputError, reject
from kerasmlp.labels import GENDER_NAMES, UNKNOWN
from kerasmlp.quantifiers import expected_age_years
from kerasmlp.stores.embedding_store import EmbeddingStore
from kerasmlp.targets import Target, choose_age_target, truth_years


def measure(
    target: Target, probabilities: np.ndarray, store: EmbeddingStore, classes: str | None = None
) -> dict:
    """Returns the metrics of head probabilities on the rows of a store that hold its label.

    Args:
        target: Of the model.
        probabilities: Of the head, shape `(rows, num_classes)`.
        store: With the same rows.
        classes: Age classes to measure in; those of the target by default.

    Returns:
        `rows`, `accuracy`, `nll`, `brier`, `ece`; for ages also
        `one_off_accuracy` and, where the store knows years, `mae_years` and
        `cumulative_score_5`.

    Raises:
        InputError: if no row holds the label, or the classes do not fit.
    """
    if target.is_age and classes:
        target = with_classes(target, classes)
    labels = target.encode(store, target.classes)
    known = labels != UNKNOWN
    if not known.any():
        reject(target.label, "must be known in at least one row of the store", "none")
    measured, labels = target.measured(probabilities)[known], labels[known]
    result = {
        "rows": int(known.sum()),
        "accuracy": metrics.accuracy(labels, measured.argmax(axis=1)),
        "nll": metrics.nll(labels, measured),
        "brier": metrics.brier(labels, measured),
        "ece": metrics.ece(labels, measured),
    }
    if target.is_age:
        result["one_off_accuracy"] = metrics.one_off_accuracy(labels, measured.argmax(axis=1))
        years = truth_years(store)
        if years is not None:
            known = np.isfinite(years)
            age_years = expected_age_years(probabilities[known], target.head_ages.centers)
            result["mae_years"] = metrics.mae_years(years[known], age_years)
            result["cumulative_score_5"] = metrics.cumulative_score(years[known], age_years, 5)
    return {k: v if isinstance(v, int) else float(v) for k, v in result.items()}


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


def groups_of_people(
    target: Target, store: EmbeddingStore
) -> Iterator[tuple[dict[str, str], np.ndarray]]:
    """Yields the names and rows (a mask) of each age group × gender that the store knows.

    The groups are those that are measured; where that is single years or no
    age at all, those that the store names, or Adience's. Rows without the
    label are in none.
    """
    ages, genders = _age_groups(target, store), store.labels.get("gender")
    labels = target.encode(store, target.classes)
    names = GENDER_NAMES if genders is not None else ("all",)
    for k, age_group in enumerate(ages[0] if ages else ("all",)):
        for g, gender in enumerate(names):
            chosen = labels != UNKNOWN
            if ages:
                chosen = chosen & (ages[1] == k)
            if genders is not None:
                chosen = chosen & (genders == g)
            if chosen.any():
                yield {"age_group": age_group, "gender": gender}, chosen


def measure_groups(target: Target, probabilities: np.ndarray, store: EmbeddingStore) -> list[dict]:
    """Returns the metrics of each group of `groups_of_people`."""
    return [
        {**names, **measure(target, probabilities[chosen], store.subset(chosen))}
        for names, chosen in groups_of_people(target, store)
    ]


def _age_groups(
    measured: Target, store: EmbeddingStore
) -> tuple[tuple[str, ...], np.ndarray] | None:
    if measured.is_age and measured.classes != "years":
        return measured.measured_names, measured.encode(store)
    classes = "adience" if truth_years(store) is not None else None
    try:
        target = choose_age_target(store, None, classes, by_years=False)
        return target.class_names, target.encode(store)
    except InputError:  # no ages, or groups whose names say nothing
        return None


def groups_table(rows: list[dict]) -> str:
    """The metrics per group as a short text table."""
    columns = ["age_group", "gender", "rows", "accuracy", "nll", "mae_years"]
    columns = [c for c in columns if rows and c in rows[0]]
    lines = [" ".join(f"{c:>12}" for c in columns)]
    for row in rows:
        cells = (f"{row[c]:.4f}" if isinstance(row[c], float) else str(row[c]) for c in columns)
        lines.append(" ".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)
