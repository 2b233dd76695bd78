"""Pictures of near-duplicates. Every function writes one PNG, whole or not at all."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasmlp.utils.drawing import label
from kerasmlp.utils.figures import save_png

_BINS = 120


def nearest_cosines(
    nearest: Mapping[str, np.ndarray], threshold: float | None, path: str | os.PathLike
) -> None:
    """Draws how many rows have their nearest at which cosine, and the threshold.

    Args:
        nearest: Cosines, by the names of stores.
        threshold: Of duplicates, or None.
        path: PNG to write.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    low = min(float(np.quantile(cosines, 0.001)) for cosines in nearest.values())
    edges = np.linspace(min(low, 0.9), 1, _BINS + 1)
    values = [np.clip(cosines, edges[0], 1) for cosines in nearest.values()]
    axes.hist(values, edges, stacked=True, label=[label(name) for name in nearest])
    axes.set_yscale("log")
    axes.set_ylim(0.7)
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
        axes.annotate(
            f"{threshold:.3f} ", (threshold, 0.97), xycoords=("data", "axes fraction"),
            ha="right", va="top", fontsize=9,
        )  # fmt: skip
    axes.set_xlabel("cosine with the nearest other row")
    axes.set_ylabel("rows")
    axes.grid(alpha=0.3)
    if len(nearest) > 1:
        axes.legend(fontsize=8)
    save_png(figure, path)


def photo_pairs(
    pairs: Sequence[tuple[np.ndarray, np.ndarray, str]], path: str | os.PathLike
) -> None:
    """Draws the photos of pairs side by side, with a line of text below.

    Args:
        pairs: Two photos, RGB or grey, and the text.
        path: PNG to write.
    """
    columns = min(4, len(pairs))
    lines = -(-len(pairs) // columns)
    figure = Figure(figsize=(3.2 * columns, 1.95 * lines), layout="constrained")
    grid = figure.subplots(lines, 2 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for number, (left, right, text) in enumerate(pairs):
        line, column = divmod(number, columns)
        both = grid[line, 2 * column : 2 * column + 2]
        for axes, photo in zip(both, (left, right), strict=True):
            axes.imshow(photo.squeeze(), cmap="gray" if photo.shape[2] == 1 else None)
        both[0].set_title(label(text, 48), fontsize=8, loc="left")
    save_png(figure, path)
