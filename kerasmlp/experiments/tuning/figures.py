"""The picture of a search."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from kerasmlp.experiments.tuning.plan import TuningPlan
from kerasmlp.experiments.tuning.space import Choice, LogRange
from kerasmlp.utils.drawing import label
from kerasmlp.utils.figures import save_png

_WORST_SHOWN = 75
"""Percentile of the losses; worse trials are drawn as triangles at the upper edge."""


def trials(plan: TuningPlan, rows: Sequence[dict], best: dict, path: str | os.PathLike) -> None:
    """Draws the losses of trials over the course of the search and against each hyperparameter.

    A line joins a trial and the one that continues it, the star is the best; equal
    choices lie side by side.
    """
    names, columns = list(plan.dimensions), 4
    lines = -(-(len(names) + 1) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.2 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    losses = np.array([row["val_loss"] for row in rows])
    low, high = _limits(losses)
    shown, inside = np.minimum(losses, high), losses <= high
    epochs = np.array([row["epochs"] for row in rows])
    number = {row["trial"]: k for k, row in enumerate(rows)}
    past = {
        k: number[row["continues"]] for k, row in enumerate(rows) if row["continues"] is not None
    }
    star, rng = number[best["trial"]], np.random.default_rng(0)
    scale = {"vmin": 1, "vmax": plan.max_epochs, "cmap": "viridis_r"}
    for axes, name in zip(grid, [None, *names], strict=False):
        if name is None:
            x = np.cumsum([row["epochs"] - row["first_epoch"] for row in rows]).astype(float)
            axes.plot(x, np.minimum(np.minimum.accumulate(losses), high), color="0.6", zorder=1)
            if not inside.all():
                axes.plot([], [], "^", color="0.4", linestyle="", label="off the scale")
        else:
            x = _places(axes, plan.dimensions[name], [row[name] for row in rows], past, rng)
            for k, before in past.items():
                pair = [before, k]
                axes.plot(x[pair], shown[pair], color="0.8", linewidth=0.8, zorder=0)
        axes.set_xlabel(name or "epochs of the search")
        dots = axes.scatter(x[inside], shown[inside], c=epochs[inside], s=18, **scale)
        axes.scatter(x[~inside], shown[~inside], c=epochs[~inside], s=18, marker="^", **scale)
        axes.plot(x[star], shown[star], "*", color="crimson", markersize=11, label="best")
        axes.set_ylim(low, high + 0.03 * (high - low))
        axes.grid(alpha=0.3)
    grid[0].legend(fontsize=8)
    for axes in grid[::columns]:
        axes.set_ylabel("validation NLL")
    for axes in grid[len(names) + 1 :]:
        axes.set_axis_off()
    whole = MaxNLocator(integer=True)
    figure.colorbar(dots, ax=list(grid), label="epochs of the trial", shrink=0.7, ticks=whole)
    save_png(figure, path)


def _places(
    axes: Axes,
    kind: LogRange | Choice,
    values: list,
    past: dict[int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """Where the values of trials lie on an axis that is made for them."""
    if isinstance(kind, LogRange):
        axes.set_xscale("log")
        axes.set_xlim(kind.low, kind.high)
        axes.xaxis.set_minor_formatter(NullFormatter())
        return np.array(values, float)
    places = {value: k for k, value in enumerate(kind.values)}
    axes.set_xticks(range(len(places)), [label(v) for v in places])
    axes.set_xlim(-0.5, len(places) - 0.5)
    # Equal values lie side by side, and a trial under the one it continues.
    jitter = rng.uniform(-0.15, 0.15, len(values))
    for k, before in past.items():
        jitter[k] = jitter[before]
    return np.array([places[value] for value in values], float) + jitter


def _limits(losses: np.ndarray) -> tuple[float, float]:
    finite = losses[np.isfinite(losses)]
    low, high = finite.min(), np.percentile(finite, _WORST_SHOWN)
    room = max(high - low, 1e-3 * max(low, 1e-3))
    return low - 0.05 * room, high + 0.05 * room
