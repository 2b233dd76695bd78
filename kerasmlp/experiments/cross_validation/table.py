"""The results of a cross-validation as rows, means and a table."""

from collections.abc import Iterable, Sequence

from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.experiments.summary import markdown_lines, mean_and_std

PARTS = ("training", "validation", "test")
_SHOWN = {  # measure: its name in the table, the parts it is shown for
    "rmse": ("RMSE", ("test",)),
    "mae": ("MAE", ("test",)),
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

    Example:

    >>> with_exact_years({"test_nll": 3.0, "test_accuracy": 0.07}, "years")
    {'test_nll': 3.0, 'test_exact_year_accuracy': 0.07}
    """
    if classes != "years":
        return row
    older = {f"{part}_accuracy": f"{part}_exact_year_accuracy" for part in PARTS}
    return {older.get(name, name): value for name, value in row.items()}


def of_heads(measures: Iterable[str], target: AnyTarget) -> list[tuple[str, str]]:
    """Names of measures in a report with what they are, those of several heads under names.

    Example:

    >>> from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
    >>> of_heads(["rmse"], SeveralTargets((NumberTarget("a"), NumberTarget("b"))))
    [('a_rmse', 'rmse'), ('b_rmse', 'rmse')]
    """
    if len(target.heads) == 1:
        return [(measure, measure) for measure in measures]
    return [(f"{head.name}_{measure}", measure) for head in target.heads for measure in measures]


def markdown_of(rows: Sequence[dict], summary: dict, target: AnyTarget) -> str:
    """Means on top, then every run."""
    sound = [row for row in rows if "diverged" not in row]
    lines = [f"Mean ± standard deviation of {len(sound)} runs.", ""]
    if len(sound) < len(rows):
        lines[:1] = [f"{lines[0]} {len(rows) - len(sound)} more diverged and are left out."]
    measured = {}
    for name, measure in of_heads(_SHOWN, target):
        if f"test_{name}" in summary:
            called, parts = _SHOWN[measure]
            head = name.removesuffix(measure).rstrip("_")
            measured[name] = f"{head} {called}".strip(), parts
    means = [
        [name, *(mean_and_std(summary[f"{p}_{k}"]) if p in parts else "" for p in PARTS)]
        for k, (name, parts) in measured.items()
    ]
    lines += ["| | training | validation | test |", *markdown_lines(("",) * 4, means)[1:], ""]
    shown = {
        f"{part}_{k}": f"{part} {name}"
        for k, (name, parts) in measured.items()
        for part in parts
        if f"{part}_{k}" in summary
    }
    cells = [
        [str(row["seed"]), str(row["fold"]), "diverged", *("" for _ in shown)]
        if "diverged" in row
        else [*(str(row[k]) for k in ("seed", "fold", "epochs")), *(f"{row[k]:.4f}" for k in shown)]
        for row in rows
    ]
    lines += markdown_lines(["seed", "fold", "epochs", *shown.values()], cells)
    return "\n".join(lines) + "\n"
