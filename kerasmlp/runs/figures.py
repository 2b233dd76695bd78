"""Pictures of answers. Every function writes one PNG, whole or not at all."""

import os
from collections.abc import Sequence

from matplotlib.figure import Figure

from kerasmlp.runs.extremes import Extremes
from kerasmlp.utils.drawing import label
from kerasmlp.utils.figures import save_png


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
