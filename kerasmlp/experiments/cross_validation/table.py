"""The results of a cross-validation as rows, means and a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PARTS = ("training", "validation", "test")
_SHOWN = {  # measure: its name in the table, the parts it is shown for
    "mae_years": ("MAE (years)", ("test",)),
    "nll": ("loss (NLL)", PARTS),
    "accuracy": ("accuracy", PARTS),
    "exact_year_accuracy": ("accuracy of the exact year", ("test",)),
    "one_off_accuracy": ("one-off accuracy", ("test",)),
    "ece": ("ECE", ("test",)),
}


def row_of(seed: int, fold: int, report: dict) -> dict:
    """One run as a flat row: seed, fold, epochs, `<part>_<measure>`; or that it diverged."""
    if "diverged" in report:
        return {"seed": seed, "fold": fold, "diverged": True}
    row = {"seed": seed, "fold": fold, "epochs": report["epochs"]}
    return row | {f"{part}_{k}": v for part in PARTS for k, v in report[part].items()}


def with_exact_years(row: dict, classes: str | None) -> dict:
    """A row of an older version, which called the accuracy of the exact year `accuracy`.

    Args:
        row: Of a run, or a summary, by `<part>_<measure>`.
        classes: Age classes that were measured.

    Example:

    >>> with_exact_years({"test_nll": 3.0, "test_accuracy": 0.07}, "years")
    {'test_nll': 3.0, 'test_exact_year_accuracy': 0.07}
    """
    if classes != "years":
        return row
    older = {f"{part}_accuracy": f"{part}_exact_year_accuracy" for part in PARTS}
    return {older.get(name, name): value for name, value in row.items()}


def summarize(rows: Sequence[dict]) -> dict:
    """Mean and standard deviation (of a sample, n - 1) over runs of each number.

    A measure that a run lacks is left out; of a single run there is no deviation.

    Example:

    >>> rows = [{"seed": 0, "fold": k, "test_nll": v} for k, v in enumerate((1.0, 2.0))]
    >>> summarize(rows)
    {'test_nll': {'mean': 1.5, 'std': 0.7071067811865476}}
    """
    summary = {}
    for name in rows[0] if rows else ():
        counted = name in ("seed", "fold") or name.endswith("_rows")
        if counted or not all(name in row for row in rows):
            continue
        values = np.array([row[name] for row in rows], np.float64)
        std = float(values.std(ddof=1)) if len(values) > 1 else None
        summary[name] = {"mean": float(values.mean()), "std": std}
    return summary


def mean_and_std(values: dict) -> str:
    """As `0.6643 ± 0.0040`; a single run has no deviation."""
    std = "" if values["std"] is None else f" ± {values['std']:.4f}"
    return f"{values['mean']:.4f}{std}"


def markdown_of(rows: Sequence[dict], summary: dict) -> str:
    """Means on top, then every run."""
    sound = [row for row in rows if "diverged" not in row]
    lines = [f"Mean ± standard deviation of {len(sound)} runs.", ""]
    if len(sound) < len(rows):
        lines[:1] = [f"{lines[0]} {len(rows) - len(sound)} more diverged and are left out."]
    lines += ["| | training | validation | test |", "| --- | --- | --- | --- |"]
    for measure, (name, parts) in _SHOWN.items():
        if f"test_{measure}" in summary:
            cells = [
                mean_and_std(summary[f"{part}_{measure}"]) if part in parts else ""
                for part in PARTS
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    shown = [
        (f"{part}_{measure}", f"{part} {name}")
        for measure, (name, parts) in _SHOWN.items()
        for part in parts
        if f"{part}_{measure}" in summary
    ]
    head = ["seed", "fold", "epochs", *(title for _, title in shown)]
    lines += ["", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in rows:
        if "diverged" in row:
            cells = [str(row["seed"]), str(row["fold"]), "diverged", *("" for _ in shown)]
        else:
            cells = [str(row[k]) for k in ("seed", "fold", "epochs")]
            cells += [f"{row[k]:.4f}" for k, _ in shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
