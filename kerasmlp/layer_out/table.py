"""LayerOut's results as the paper's tables show them, and as curves."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from kerasmlp.cross_validation.table import summarize
from kerasmlp.layer_out.plan import MODES

_NUMBERS = (
    "test_accuracy", "best_test_accuracy", "frozen_share", "expected_frozen_share", "seconds",
)  # fmt: skip
_PANELS = {
    "loss": "training loss",
    "val_accuracy": "test accuracy",
    "frozen_share": "share of parameters frozen",
}


def title_of(row: dict) -> str:
    return MODES[row["mode"]] + (", random erasing" if row["random_erasing"] else "")


def row_of(report: dict) -> dict:
    """One run as a flat row."""
    row = {k: report[k] for k in ("mode", "random_erasing", "seed", *_NUMBERS[:-1])}
    return row | {"seconds": report["seconds"]["fit"]}


def summarize_modes(rows: Sequence[dict]) -> dict[str, dict]:
    """Mean and standard deviation over seeds of each number, for each mode."""
    by_title: dict[str, list[dict]] = {}
    for row in rows:
        by_title.setdefault(title_of(row), []).append({k: row[k] for k in _NUMBERS})
    return {title: summarize(group) for title, group in by_title.items()}


def markdown_of(summary: dict[str, dict], num_seeds: int) -> str:
    """The table: one line per mode.

    Example:

    >>> row = {"mode": "efreeze", "random_erasing": False, "test_accuracy": 0.99,
    ...     "best_test_accuracy": 0.9908, "frozen_share": 0.223, "expected_frozen_share": 0.2,
    ...     "seconds": 61.2}
    >>> print(markdown_of(summarize_modes([row]), 1).splitlines()[-1])
    | 1 | LayerOut-efreeze | 99.00 | 99.08 | 22.3 (20.0) | 61 |
    """
    columns = (
        "S.No", "Architecture", "Accuracy (%)", "Best epoch (%)",
        "Parameters frozen (expected) (%)", "Training (s)",
    )  # fmt: skip
    lines = [f"Test accuracy, mean ± standard deviation of {num_seeds} seeds.", ""]
    lines += [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for number, (title, values) in enumerate(summary.items(), 1):
        observed, expected = values["frozen_share"], values["expected_frozen_share"]
        cells = [
            str(number),
            title,
            _percent(values["test_accuracy"]),
            _percent(values["best_test_accuracy"]),
            f"{100 * observed['mean']:.1f} ({100 * expected['mean']:.1f})"
            if expected["mean"]
            else "-",
            f"{values['seconds']['mean']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(histories: dict[str, list[list[dict]]], path: str | os.PathLike) -> None:
    """Draws loss, test accuracy and frozen share over epochs, the mean over seeds of each mode.

    Args:
        histories: For each title the histories of its runs.
        path: Of the PNG.
    """
    from matplotlib.figure import Figure

    from kerasmlp.plots import save_png

    figure = Figure(figsize=(4 * len(_PANELS), 3.4), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for title, runs in histories.items():
            values = np.array([[float(row.get(name, 0)) for row in history] for history in runs])
            epochs = np.arange(1, values.shape[1] + 1)
            axes.plot(epochs, values.mean(axis=0), marker=".", markersize=3, label=title)
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    save_png(figure, path)


def _percent(values: dict) -> str:
    std = "" if values["std"] is None else f" ± {100 * values['std']:.2f}"
    return f"{100 * values['mean']:.2f}{std}"
