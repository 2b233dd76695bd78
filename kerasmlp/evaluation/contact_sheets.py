"""Photos of rows with what is said of each, side by side. One PNG, whole or not at all."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from kerasmlp.utils.drawing import label
from kerasmlp.utils.figures import save_png

COLUMNS, LINES = 5, 4
PER_SHEET = COLUMNS * LINES


class Picture(NamedTuple):
    """A photo with its lines of text.

    Attributes:
        image: RGB `(height, width, 3)` or grey `(height, width)`, 0 to 255.
        lines: At most four, short.
    """

    image: np.ndarray
    lines: Sequence[str]


def contact_sheet(pictures: Sequence[Picture], title: str, path: str | os.PathLike) -> None:
    """Draws up to 20 photos.

    Args:
        pictures: The first of them at the top left.
        title: Above all.
        path: Of the PNG.
    """
    lines = -(-len(pictures) // COLUMNS)
    figure = Figure(figsize=(2.0 * COLUMNS, 2.75 * lines + 0.4), layout="constrained")
    figure.suptitle(label(title, 120), fontsize=10)
    grid = figure.subplots(lines, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, picture in zip(grid.flat, pictures, strict=False):
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.imshow(picture.image, cmap="gray", vmin=0, vmax=255)
        axes.set_xlabel("\n".join(label(line, 34) for line in picture.lines), fontsize=7)
    save_png(figure, path)
