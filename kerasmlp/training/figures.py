"""Pictures of a training. Every function writes one PNG, whole or not at all."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerasmlp.utils.figures import save_png

_LABELS = {
    "loss": "training loss (of batches as they are trained on)",
    "val_loss": "validation NLL",
    "val_accuracy": "validation accuracy",
    "val_exact_year_accuracy": "validation accuracy of the exact year",
    "val_mae_years": "validation MAE (years)",
}


def curves(history: list[dict], path: str | os.PathLike) -> None:
    """Draws training loss and validation metrics over epochs."""
    epochs = [row["epoch"] + 1 for row in history]
    names = [k for k in _LABELS if all(k in row for row in history)]
    figure = Figure(figsize=(3.7 * len(names), 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axes.plot(epochs, [row[name] for row in history], marker=".", markersize=4)
        axes.set_title(_LABELS[name], fontsize=10)
        over_epochs(axes)
    save_png(figure, path)


def curves_with_bands(histories: Sequence[list[dict]], path: str | os.PathLike) -> None:
    """Draws mean and standard deviation over runs of training and validation loss.

    Where runs stop early, an epoch's mean is over those that still train; it
    is drawn as far as half of them do.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in ("loss", "val_loss"):
        mean, std = band_of(histories, name)
        band(axes, mean, mean - std, mean + std, label=_LABELS[name], markersize=4, alpha=0.25)
    axes.set_ylabel(f"mean ± standard deviation of {len(histories)} runs")
    over_epochs(axes)
    axes.legend()
    save_png(figure, path)


def over_epochs(axes: Axes) -> None:
    """Axes over whole epochs, with a grid."""
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)


def band(
    axes: Axes, middle: np.ndarray, low: np.ndarray, high: np.ndarray, *, label: str,
    markersize: float = 3, alpha: float = 0.15, **fill: float,
) -> None:  # fmt: skip
    """Draws a line over the epochs, and in its colour what lies between two others."""
    epochs = np.arange(1, len(middle) + 1)
    (line,) = axes.plot(epochs, middle, marker=".", markersize=markersize, label=label)
    axes.fill_between(epochs, low, high, alpha=alpha, color=line.get_color(), **fill)


def band_of(histories: Sequence[list[dict]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a column per epoch, as far as half of the runs train."""
    length = sorted(map(len, histories))[len(histories) // 2]
    values = np.full((len(histories), length), np.nan)
    for row, history in zip(values, histories, strict=True):
        row[: len(history)] = [float(epoch[name]) for epoch in history[:length]]
    return mean_and_band(values)


def mean_and_band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n - 1) of each column's numbers; of one number it is 0.

    Example:

    >>> mean_and_band(np.array([[1.0, 4.0], [3.0, np.nan]]))
    (array([2., 4.]), array([1.41421356, 0.        ]))
    """
    mean = np.nanmean(values, axis=0)
    freedom = np.maximum((~np.isnan(values)).sum(axis=0) - 1, 1)
    return mean, np.sqrt(np.nansum((values - mean) ** 2, axis=0) / freedom)
