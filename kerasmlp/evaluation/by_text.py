"""The groups of a column as a short text."""

from collections.abc import Mapping

from kerasmlp.evaluation.bootstrap import FEWEST
from kerasmlp.evaluation.measuring import rounded
from kerasmlp.utils.checks import one_sentence

_MOST = 32
"""Letters of a name that are shown."""


def by_table(column: str, groups: Mapping[str, Mapping], gaps: Mapping) -> str:
    """The chief measures of each group with their intervals, and what its column comes to.

    Args:
        column: Its name.
        groups: By value, of `by_columns`.
        gaps: Of the column.

    Example:

    >>> groups = {
    ...     "Black": {"rows": 80, "small": False, "accuracy": 0.9, "intervals": {}},
    ...     "White": {"rows": 90, "small": False, "accuracy": 0.8, "intervals": {}},
    ... }
    >>> gap = {"worst": "White", "best": "Black", "gap": 0.1, "p_value": 0.04}
    >>> print(by_table("race", groups, {"rows_unknown": 3, "deterministic": {"accuracy": gap}}))
     race  rows  accuracy
    Black    80     0.900
    White    90     0.800
    accuracy: worst White (0.800), best Black (0.900); gap 0.100, p = 0.040
    3 rows of unknown race are in no group
    """
    there = {name for group in groups.values() for name in group}
    accuracy = "accuracy" if "accuracy" in there else "exact_year_accuracy"
    last = "interval_90_coverage" if "interval_90_coverage" in there else "ece"
    shown = [k for k in ("rmse", "mae_years", accuracy, "nll", last) if k in there]
    table = [[_short(column), "rows", *shown]]
    for value, group in groups.items():
        cells = (_cell(group, name) for name in shown)
        table.append([f"{_short(value)}{'*' * group['small']}", str(group["rows"]), *cells])
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in table]
    tested = gaps.get("deterministic", {})
    for measure in [k for k in shown if k in tested][:1]:
        lines.append(_gap_line(measure, groups, tested[measure]))
    if any(group["small"] for group in groups.values()):
        lines.append(f"* fewer than {FEWEST} rows, those of one group counted once: not compared")
    if unknown := gaps["rows_unknown"]:
        lines.append(f"{unknown} rows of unknown {_short(column)} are in no group")
    return "\n".join(lines)


def _gap_line(measure: str, groups: Mapping[str, Mapping], gap: Mapping) -> str:
    worst, best = (
        f"{_short(gap[k])} ({rounded(measure, groups[gap[k]][measure])})" for k in ("worst", "best")
    )
    size = rounded(measure, gap["gap"])
    return f"{measure}: worst {worst}, best {best}; gap {size}, p = {gap['p_value']:.3f}"


def _cell(group: Mapping, name: str) -> str:
    if name not in group:
        return ""
    text, ends = rounded(name, group[name]), group["intervals"].get(name)
    if ends is None:
        return text
    low, high = (rounded(name, end) for end in ends)
    return f"{text} [{low}, {high}]"


def _short(name: str) -> str:
    text = one_sentence(name)
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
