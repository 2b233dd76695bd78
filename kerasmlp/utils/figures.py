"""Pictures of results. Every function writes one PNG, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from kerasmlp.evaluation.metrics import confusion_matrix
from kerasmlp.runs.extremes import Extremes
from kerasmlp.utils.drawing import label
from kerasmlp.utils.files import atomic_path

_LABELS = {
    "loss": "training loss (of batches as they are trained on)",
    "val_loss": "validation NLL",
    "val_accuracy": "validation accuracy",
    "val_exact_year_accuracy": "validation accuracy of the exact year",
    "val_mae_years": "validation MAE (years)",
}


def save_png(figure: Figure, path: str | os.PathLike) -> None:
    for text in figure.findobj(Text):
        text.set_usetex(False)  # whatever its user likes: names are no TeX
    with atomic_path(path) as temporary, matplotlib.rc_context({"text.usetex": False}):
        figure.savefig(temporary, dpi=120, bbox_inches="tight", format="png")


def curves(history: list[dict], path: str | os.PathLike) -> None:
    """Draws training loss and validation metrics over epochs."""
    epochs = [row["epoch"] + 1 for row in history]
    names = [k for k in _LABELS if all(k in row for row in history)]
    figure = Figure(figsize=(3.7 * len(names), 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axes.plot(epochs, [row[name] for row in history], marker=".", markersize=4)
        axes.set_title(_LABELS[name], fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
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
        epochs = np.arange(1, len(mean) + 1)
        (line,) = axes.plot(epochs, mean, marker=".", markersize=4, label=_LABELS[name])
        axes.fill_between(epochs, mean - std, mean + std, alpha=0.25, color=line.get_color())
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"mean ± standard deviation of {len(histories)} runs")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)
    axes.legend()
    save_png(figure, path)


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


def confusion(
    labels: np.ndarray, predicted: np.ndarray, names: Sequence[str], path: str | os.PathLike
) -> None:
    """Draws the confusion matrix, as shares of each true class."""
    size, names = len(names), [label(name) for name in names]
    counts = confusion_matrix(labels, predicted, size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    small = size <= 20
    side = 2 + 0.55 * size if small else 7
    room = 0.085 * max(0, max(map(len, names)) - 12)  # inches, for names longer than most
    figure = Figure(figsize=(side + 1 + room, side + 0.7 * room), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1 if small else None)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if small:
        ticks = np.arange(size)
        rows = [f"{n} ({int(c)})" for n, c in zip(names, counts.sum(axis=1), strict=True)]
        axes.set_xticks(ticks, names, rotation=45, ha="right")
        axes.set_yticks(ticks, rows)
        for i, j in np.ndindex(size, size):
            if counts[i, j]:
                color = "white" if shares[i, j] > 0.5 else "black"
                text = f"{shares[i, j]:.2f}"
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
    else:
        ticks = np.arange(0, size, 10)
        axes.set_xticks(ticks, [names[t] for t in ticks])
        axes.set_yticks(ticks, [names[t] for t in ticks])
    save_png(figure, path)


def extreme_faces(extremes: Sequence[Extremes], path: str | os.PathLike) -> None:
    """Draws two rows of faces per model: the surest answers and the least sure ones."""
    rows = [
        (f"{label(kept.name, 20)}: {words} predictive entropy", faces)
        for kept in extremes
        for words, faces in (("lowest", kept.lowest), ("highest", kept.highest))
        if faces
    ]
    columns = max(len(faces) for _, faces in rows)
    figure = Figure(figsize=(1.35 * columns, 2.1 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes_row, (title, faces) in zip(grid, rows, strict=True):
        axes_row[0].set_title(title, loc="left", fontsize=10)
        for axes in axes_row[len(faces) :]:
            axes.set_axis_off()
        for axes, face in zip(axes_row, faces, strict=False):
            axes.imshow(face.crop[:, :, ::-1])
            axes.set_xticks([])
            axes.set_yticks([])
            answer = [label(line, 24) for line in face.text.splitlines()]
            text = "\n".join([f"{face.entropy_nats:.4f} nats", *answer])
            axes.set_xlabel(text, fontsize=7)
    save_png(figure, path)
