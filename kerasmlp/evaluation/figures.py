"""Figures of an evaluation. Every function writes one PNG, whole or not at all."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kerasmlp.evaluation.metrics import confusion_matrix
from kerasmlp.utils.drawing import label
from kerasmlp.utils.figures import save_png

_NAMES = {
    "deterministic": "deterministic model",
    "mc_mean": "MC mean",
    "store": "store",
    "random_unit_vectors": "random unit vectors",
}
_MIN_ROWS = 10
_MOST_BARS = 200
_POINTS = 2000
_COLORS = {"deterministic": "tab:orange", "mc_mean": "tab:blue"}


def reliability(
    bins: Mapping[str, Mapping[str, np.ndarray]], ece: Mapping[str, float], path: str | os.PathLike
) -> None:
    """Draws accuracy over confidence, and below how many rows have which confidence.

    A bin of fewer than 10 rows has no point: its accuracy is chance.
    """
    figure = Figure(figsize=(3.4 * len(bins), 4.0), layout="constrained")
    axes = figure.subplots(
        2, len(bins), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1]
    )
    for (upper, lower), (name, columns) in zip(axes.T, bins.items(), strict=True):
        edges = np.linspace(0, 1, len(columns["rows"]) + 1)
        upper.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle="--")
        shown = columns["rows"] >= _MIN_ROWS
        upper.plot(
            columns["confidence"][shown], columns["accuracy"][shown], marker="o", markersize=4,
            color=_COLORS[name],
        )  # fmt: skip
        upper.set_title(f"{_NAMES[name]}, ECE {ece[name]:.3f}", fontsize=10)
        shares = columns["rows"] / columns["rows"].sum()
        lower.bar(edges[:-1], shares, np.diff(edges), align="edge", color=_COLORS[name], alpha=0.6)
        lower.set_xlabel("confidence")
        filled = np.flatnonzero(columns["rows"])
        upper.set_xlim(edges[filled[0]], 1)
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("share of rows")
    axes[1, 0].yaxis.set_major_formatter(PercentFormatter(1))
    save_png(figure, path)


def risk_coverage(
    curves: Mapping[str, np.ndarray], oracle: np.ndarray, path: str | os.PathLike
) -> None:
    """Draws the share of wrong classes among the answers over the share of rows answered.

    Args:
        oracle: The curve of one who knows which rows are wrong.
    """
    figure = Figure(figsize=(4.6, 3.9), layout="constrained")
    axes = figure.subplots()
    rows = len(oracle)
    shown = np.unique(np.linspace(0, rows - 1, min(rows, _POINTS)).round().astype(int))
    coverage, begun = (shown + 1) / rows, (shown + 1) / rows >= 0.01
    for name, curve in curves.items():
        text = f"{_NAMES[name]} ({curve.mean():.3f})"
        axes.plot(coverage[begun], curve[shown[begun]], label=text, color=_COLORS[name])
    risk = oracle[-1]
    axes.axhline(risk, color="gray", linestyle="--", label=f"at random ({risk:.3f})")
    text = f"oracle ({oracle.mean():.3f})"
    axes.plot(coverage, oracle[shown], color="black", linestyle=":", label=text)
    # The first few rows decide nothing, and would set the scale.
    top = max([risk, *(curve[rows // 20 :].max(initial=0.0) for curve in curves.values())])
    _label_shares(axes, "coverage (rows answered)", "risk (answers that are wrong)")
    axes.set_ylim(0, max(1.15 * top, 1e-3))
    figure.legend(
        loc="outside lower center", ncols=2, fontsize=8, title="area under the curve",
        title_fontsize=8,
    )  # fmt: skip
    save_png(figure, path)


def intervals(
    nominal_percent: Sequence[int],
    observed: Mapping[str, Sequence[float]],
    conformal: Mapping[str, Mapping[int, float]],
    of_numbers: bool,
    path: str | os.PathLike,
) -> None:
    """Draws which share of ages or numbers lies in intervals of which nominal coverage.

    Args:
        conformal: Per model, percent to coverage of the answered intervals;
            empty where they are not conformal.
    """
    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle="--")
    for name, coverage in observed.items():
        levels = np.asarray(nominal_percent) / 100
        text = f"{_NAMES[name]}, as predicted"
        axes.plot(levels, coverage, marker=".", color=_COLORS[name], label=text)
    for (name, points), marker in zip(conformal.items(), "Dx", strict=False):
        axes.plot(
            [c / 100 for c in points], list(points.values()), marker, markersize=8,
            fillstyle="none", color=_COLORS[name], label=f"{_NAMES[name]}, conformal",
        )  # fmt: skip
    what = "intervals" if of_numbers else "age intervals"
    _label_shares(axes, f"nominal coverage of {what}", "observed coverage")
    axes.legend(fontsize=8)
    save_png(figure, path)


def _label_shares(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)


def uncertainty(
    values: Mapping[str, Mapping[str, np.ndarray]],
    auroc: Mapping[str, Mapping[str, float]],
    path: str | os.PathLike,
) -> None:
    """Draws the distribution of each measure on the store and on other sources.

    Args:
        values: Measure to source to values; the first source is the store.
        auroc: Source to measure to AUROC against the store; they stand above
            each panel in the order of the legend.
    """
    columns = 3
    rows = -(-len(values) // columns)
    figure = Figure(figsize=(3.5 * columns, 2.6 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (name, sources) in zip(panels, values.items(), strict=False):
        everything = np.concatenate(list(sources.values()))
        low, high = everything.min(), everything.max()
        edges = np.linspace(low, high if high > low else low + 1, 41)
        for number, (source, numbers) in enumerate(sources.items()):
            weights = np.full(len(numbers), 1 / len(numbers))
            color = "tab:blue" if number == 0 else f"C{number}"
            panel.hist(
                numbers, edges, weights=weights, alpha=0.45, color=color,
                label=label(_NAMES.get(source, source)),
            )  # fmt: skip
        scores = ", ".join(f"{by_measure[name]:.2f}" for by_measure in auroc.values())
        panel.set_title(f"{name}\nAUROC {scores}", fontsize=9)
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        panel.grid(alpha=0.3)
    for panel in panels[len(values) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    save_png(figure, path)


def predicted(numbers: np.ndarray, answers: np.ndarray, name: str, path: str | os.PathLike) -> None:
    """Draws predicted numbers over true ones, with predicted standard deviations of some.

    Args:
        numbers: True ones, `(rows,)`.
        answers: Mean and standard deviation, `(rows, 2)`.
        name: Of the label, and its unit.
        path: PNG to write.
    """
    mean, std = np.asarray(answers, np.float64).T
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    low, high = min(numbers.min(), mean.min()), max(numbers.max(), mean.max())
    axes.plot([low, high], [low, high], color="gray", linewidth=1, linestyle="--")
    some = np.unique(np.linspace(0, len(mean) - 1, _MOST_BARS).round().astype(int))
    axes.errorbar(
        numbers[some], mean[some], std[some], fmt="none", ecolor="tab:blue", alpha=0.25,
        elinewidth=1,
    )  # fmt: skip
    axes.plot(numbers, mean, ".", markersize=3, color="tab:blue")
    axes.set_xlabel(label(f"true {name}"))
    axes.set_ylabel(label(f"predicted {name}"))
    axes.grid(alpha=0.3)
    save_png(figure, path)


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
