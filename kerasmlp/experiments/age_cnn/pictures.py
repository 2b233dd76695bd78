"""Pictures of a training of ages: its course, the ages it saw, its best and worst answers."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasmlp.data.examples import Examples
from kerasmlp.training.figures import over_epochs
from kerasmlp.utils.figures import save_png

SHOWN = 4
"""Faces in a row, as in the paper."""


TRAINING = {"mae_years": "training", "val_mae_years": "validation"}
BY_HEART = {
    "mae_years": "while training (dropout, statistics of the batch)",
    "val_mae_years": "as the model answers",
}
"""Columns of a history, and what they are where the same images are measured twice."""


def curves(history: list[dict], path: str | os.PathLike, *, lines: Mapping[str, str]) -> None:
    """Draws columns of MAE over epochs."""
    epochs = [row["epoch"] + 1 for row in history]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, label in lines.items():
        values = [row[name] for row in history]
        axes.plot(epochs, values, marker=".", markersize=4, label=label)
    axes.set_ylabel("MAE (years)")
    over_epochs(axes)
    axes.legend()
    save_png(figure, path)


def ages(age_years: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Draws the histogram of ages of each split."""
    figure = Figure(figsize=(3.7 * len(age_years), 3), layout="constrained")
    grid = figure.subplots(1, len(age_years), squeeze=False, sharex=True)[0]
    top = max(float(values.max()) for values in age_years.values())
    bins = np.arange(0, top + 6, 5)
    for axes, (split, values) in zip(grid, age_years.items(), strict=True):
        axes.hist(values, bins)
        axes.set_title(f"{split}: {len(values):,} images", fontsize=10)
        axes.set_xlabel("age (years)")
        axes.grid(alpha=0.3)
    save_png(figure, path)


def faces(part: Examples, predicted: np.ndarray, path: str | os.PathLike) -> None:
    """Draws the faces of least and of largest error, with their ages."""
    order = np.argsort(np.abs(part.targets - predicted), kind="stable")
    shown = min(SHOWN, len(order))
    figure = Figure(figsize=(2 * shown, 5), layout="constrained")
    grid = figure.subplots(2, shown, squeeze=False)
    for axes_row, title, rows in zip(
        grid, ("best", "worst"), (order[:shown], order[::-1][:shown]), strict=True
    ):
        axes_row[0].set_title(title, loc="left", fontsize=10)
        for axes, row in zip(axes_row, rows, strict=True):
            axes.imshow(part.inputs[row, :, :, 0], cmap="gray", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
            text = f"true {part.targets[row]:.0f}, predicted {predicted[row]:.1f}"
            axes.set_xlabel(text, fontsize=8)
    save_png(figure, path)


def trials(rows: Sequence[dict], best: dict, path: str | os.PathLike) -> None:
    """Draws each stage of a search: both values of every trial, its error as colour, a star."""
    stages = sorted({row["stage"] for row in rows})
    errors = np.array([row["val_mae_years"] for row in rows])
    finite = errors[np.isfinite(errors)]
    scale = {"vmin": finite.min(), "vmax": np.percentile(finite, 75), "cmap": "viridis_r"}
    figure = Figure(figsize=(4.5 * len(stages), 3.8), layout="constrained")
    for axes, stage in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        shown = [row for row in rows if row["stage"] == stage]
        color = np.minimum([row["val_mae_years"] for row in shown], scale["vmax"])
        x, y = ([row[name] for row in shown] for name in ("learning_rate", "regularization"))
        dots = axes.scatter(x, y, c=color, s=24, **scale)
        if best["stage"] == stage:
            place = best["learning_rate"], best["regularization"]
            axes.plot(*place, "*", color="crimson", markersize=13)
        axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="regularization")
        axes.set_title(f"stage {stage}: {len(shown)} trial{'s' * (len(shown) > 1)}", fontsize=10)
        axes.grid(alpha=0.3)
    label = "validation MAE (years); the worst quarter in one colour"
    figure.colorbar(dots, ax=figure.axes, label=label, shrink=0.9)
    save_png(figure, path)
