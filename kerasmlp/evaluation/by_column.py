"""Every measure of the rows with each value of a column, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.splits import group_codes
from kerasmlp.evaluation.bootstrap import FEWEST, group_intervals
from kerasmlp.evaluation.gap_test import gap_tests
from kerasmlp.evaluation.grouping import Grouping
from kerasmlp.evaluation.measured_answers import Answers
from kerasmlp.evaluation.measuring import MEASURES
from kerasmlp.evaluation.row_scores import row_scores
from kerasmlp.utils.tables import row_writer

_MORE_IS_BETTER = ("accuracy", "exact_year_accuracy", "one_off_accuracy")
_NOT_COMPARED = ("r2", "ece")
"""Of `MEASURES`: they depend on how varied the numbers of a group are, or how few its rows."""
_INNER = ("intervals", "deterministic", "mc_mean")


def by_columns(
    rows: Examples,
    answers: Mapping[str, Answers],
    groupings: Sequence[Grouping],
    *,
    group: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, dict]:
    """Measures models on the rows with each value of columns.

    Args:
        rows: With the label, all known.
        answers: Of `deterministic`, and of `mc_mean` where it is sampled.
        groupings: Of the same rows.
        group: Column of rows that are no draws of their own; by default `group`.
        seed: Of bootstrap and tests.
        progress: Show a bar.

    Returns:
        `by`, from column and value to `rows`, `clusters` (of rows of one group), `small`
        (whether these are fewer than 20), the measures of the deterministic model and their
        `intervals`, and under `mc_mean` those of the mean. `gaps`, from column to
        `rows_unknown` and, by model and measure, `worst`, `best`, `gap` and `p_value`.
        Nothing without groupings.
    """
    if not groupings:
        return {}
    found: dict[str, dict] = {"by": {}, "gaps": {}}
    each = {model: row_scores(rows, one) for model, one in answers.items()}
    scores = {(model, name): one for model, of in each.items() for name, one in of.items()}
    compared = [name for name in scores if _is_compared(name[1])]
    clusters = group_codes(rows.groups(group))
    for one in groupings:
        where, how = (one.codes, clusters), {"seed": seed, "progress": progress}
        intervals = group_intervals(scores, *where, len(one.values), **how)
        values = {
            value: _of_group(scores, np.flatnonzero(one.codes == code), clusters, intervals[code])
            for code, value in enumerate(one.values)
        }
        gaps: dict[str, Any] = {"rows_unknown": int((one.codes < 0).sum())}
        tests = gap_tests({name: scores[name] for name in compared}, *where, **how)
        for (model, measure), (lowest, highest, p_value) in tests.items():
            ends = [one.values[code] for code in (lowest, highest)]
            worst, best = ends if more_is_better(measure) else ends[::-1]
            low, high = (_of_model(values[end], model)[measure] for end in ends)
            gap = {"worst": worst, "best": best, "gap": high - low, "p_value": p_value}
            gaps.setdefault(model, {})[measure] = gap
        found["by"][one.column], found["gaps"][one.column] = values, gaps
    return found


def _is_compared(measure: str) -> bool:
    told = measure in MEASURES and measure not in _NOT_COMPARED
    return told or measure.endswith("_coverage")


def more_is_better(measure: str) -> bool:
    """Of coverage, too: an interval that promises too much is worse than one that is too wide."""
    return measure in _MORE_IS_BETTER or measure.endswith("_coverage")


def _of_group(scores, chosen: np.ndarray, clusters: np.ndarray, intervals: Mapping) -> dict:
    number = len(np.unique(clusters[chosen]))
    result: dict[str, Any] = {"rows": len(chosen), "clusters": number, "small": number < FEWEST}
    for model in dict.fromkeys(model for model, _ in scores) if len(chosen) else ():
        values = {k: score.value(chosen) for (m, k), score in scores.items() if m == model}
        known = {k: v for k, v in values.items() if not np.isnan(v)}
        ends = {k: list(intervals[model, k]) for k in known if (model, k) in intervals}
        measured = known | {"intervals": ends}
        result |= measured if model == "deterministic" else {model: measured}
    return result


def _of_model(group: Mapping, model: str) -> Mapping:
    return group if model == "deterministic" else group.get(model, {})


def chief_measure(groups: Mapping[str, Mapping]) -> str:
    """The measure that groups are told apart by first: of ages the error in years."""
    return next(k for k in MEASURES if any(k in group for group in groups.values()))


def of_heads(reports: Mapping[str, Mapping]) -> dict[str, dict]:
    """`by` and `gaps` of the heads of a run as one, with measures named `<head>_<measure>`.

    Args:
        reports: Of each head, by its name.

    Example:

    >>> ages = {"by": {"race": {"Black": {"rows": 7, "intervals": {}}}}}
    >>> of_heads({"age": ages, "sex": ages})
    {'by': {'race': {'Black': {'age_rows': 7, 'intervals': {}, 'sex_rows': 7}}}}
    """
    found: dict[str, dict] = {}
    for head, report in reports.items():
        for key in [k for k in ("by", "gaps") if k in report]:
            for column, values in report[key].items():
                if key == "gaps":
                    _merge(found.setdefault(key, {}).setdefault(column, {}), values, head)
                    continue
                for value, group in values.items():
                    of = found.setdefault(key, {}).setdefault(column, {})
                    _merge(of.setdefault(value, {}), group, head)
    return found


def _merge(found: dict, values: Mapping, head: str) -> None:
    for name, value in values.items():
        if name in _INNER:
            _merge(found.setdefault(name, {}), value, head)
        else:
            found[f"{head}_{name}"] = value


def write_by(path: Path, report: Mapping[str, Mapping[str, Mapping]]) -> None:
    """Writes the groups of all columns as a CSV table, a line per model.

    Args:
        path: Of the file.
        report: `by` of `by_columns`.
    """
    with row_writer(path, "csv") as write:
        for column, values in report.items():
            for value, group in values.items():
                named = {"column": column, "value": value}
                counts = {k: group[k] for k in ("rows", "clusters", "small")}
                for model in [m for m in ("deterministic", "mc_mean") if _of_model(group, m)]:
                    write({**named, "model": model, **counts, **_flat(_of_model(group, model))})


def _flat(measured: Mapping[str, Any]) -> dict[str, float]:
    """Measures, each followed by the ends of its interval."""
    row: dict[str, float] = {}
    for name, value in measured.items():
        if name not in ("rows", "clusters", "small", *_INNER):
            row[name] = value
            if ends := measured.get("intervals", {}).get(name):
                row |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return row
