"""Pictures of the experiment. Every function writes one PNG."""

import os
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

from kerasmlp.data.labels import GENDER_NAMES, NUM_YEARS
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.residual_mlp.design import INITS, VARIANTS, Folders
from kerasmlp.training.figures import band, band_of, over_epochs
from kerasmlp.utils.drawing import label
from kerasmlp.utils.figures import save_png
from kerasmlp.utils.tables import read_csv


def distributions(stores: Mapping[str, EmbeddingStore], path: str | os.PathLike) -> None:
    """Draws ages and genders of each store, as in Figure 2."""
    figure = Figure(figsize=(9, 2.6 * len(stores)), layout="constrained")
    grid = figure.subplots(len(stores), 2, squeeze=False, width_ratios=[4, 1])
    for (name, store), (ages, genders) in zip(stores.items(), grid, strict=True):
        years = store.labels.get("age_years")
        if years is not None:
            known = np.clip(years[np.isfinite(years)], 0, NUM_YEARS - 1)
            ages.hist(known, bins=np.arange(NUM_YEARS + 1))
            ages.set_xlabel("age (years)")
        elif "age_group" in store.labels:
            groups, counts = np.unique(store.labels["age_group"], return_counts=True)
            order = np.argsort([_first_year(g) for g in groups.tolist()], kind="stable")
            kept = [k for k in order if groups[k]]
            ages.bar(range(len(kept)), counts[kept])
            ages.set_xticks(range(len(kept)), [label(groups[k]) for k in kept], rotation=30)
            ages.set_xlabel("age group (years)")
        ages.set_title(f"{name}: {len(store):,} faces", loc="left", fontsize=10)
        ages.set_ylabel("faces")
        gender = store.labels.get("gender")
        if gender is not None:
            counts = [int((gender == k).sum()) for k in range(len(GENDER_NAMES))]
            bars = genders.bar(GENDER_NAMES, counts)
            genders.bar_label(bars, [f"{c:,}" for c in counts], fontsize=8)
            genders.margins(y=0.12)  # room for the labels
    save_png(figure, path)


_LOSSES = {"loss": "training loss (with dropout)", "val_loss": "validation loss"}


def loss_curves(folders: Folders, task: str, path: str | os.PathLike) -> None:
    """Draws mean and standard deviation of the losses per epoch, as in Figure 4.

    Where runs stop early, an epoch's mean is over those that still train; it
    is drawn as far as half of them do. Runs that diverged are left out.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    grid = figure.subplots(2, 2, sharex="col")
    for column, init in enumerate(INITS):
        histories = {v: _histories(folders[task, v, init]) for v in VARIANTS}
        for axes, (name, words) in zip(grid[:, column], _LOSSES.items(), strict=True):
            for variant, of_runs in histories.items():
                if not of_runs:
                    axes.plot([], label=variant)  # the colours of the others stay
                    continue
                mean, std = band_of(of_runs, name)
                band(axes, mean, mean - std, mean + std, label=variant)
            axes.set_title(f"{task}: {words}, {init} initialisation", fontsize=10)
            over_epochs(axes)
    for axes in grid[0]:
        axes.set_xlabel("")  # that of the axes below is theirs, too
    grid[0, 0].legend(fontsize=8)
    save_png(figure, path)


def network(model: keras.Model, path: str | os.PathLike) -> None:
    """Draws the blocks of a residual MLP with their widths and skip connections, as in Figure 3."""
    boxes = [("embedding", model.input_shape[-1], False)]
    for layer in model.layers:
        kind = type(layer).__name__
        if kind in ("ResidualBlock", "DownsampleBlock", "Dense"):
            skip = kind == "ResidualBlock" and layer.use_residual
            boxes.append((_BOXES[kind], layer.output.shape[-1], skip))
    widest = max(width for _, width, _ in boxes)
    figure = Figure(figsize=(1.25 * len(boxes) + 1, 3.2), layout="constrained")
    axes = figure.subplots()
    for x, (name, width, skip) in enumerate(boxes):
        height = 0.25 + 0.75 * width / widest
        color = {"embedding": "0.85", "dense": "tab:green"}.get(
            name, "tab:blue" if name.startswith("residual") else "tab:orange"
        )
        axes.bar(x, height, width=0.62, bottom=-height / 2, color=color, alpha=0.75)
        axes.text(x, 0, f"{name}\n{width}", ha="center", va="center", rotation=90, fontsize=7)
        if x:
            how = {"arrowstyle": "->", "color": "0.3"}
            axes.annotate("", (x - 0.31, 0), (x - 0.69, 0), arrowprops=how)
        if skip:
            over = {"arrowstyle": "->", "color": "tab:blue", "connectionstyle": "arc3,rad=-0.35"}
            top = height / 2 + 0.01
            axes.annotate("", (x + 0.31, top), (x - 0.31, top), arrowprops=over)
    axes.set_xlim(-0.6, len(boxes) - 0.4)
    axes.set_ylim(-0.62, 0.75)
    axes.set_axis_off()
    save_png(figure, path)


def entropies(values: Mapping[str, tuple[np.ndarray, np.ndarray]], path: str | os.PathLike) -> None:
    """Draws the predictive entropy (nats) of answers that are right, and of wrong ones."""
    figure = Figure(figsize=(4.5 * len(values), 3), layout="constrained")
    for axes, (task, (entropy, right)) in zip(
        figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True
    ):
        bins = np.linspace(0, max(float(entropy.max()), 1e-6), 31)
        for chosen, name in ((right, "right"), (~right, "wrong")):
            if not chosen.any():
                continue
            axes.hist(
                entropy[chosen], bins, density=True, alpha=0.6, label=f"{name} ({chosen.sum()})"
            )
        axes.set_title(task, fontsize=10)
        axes.set_xlabel("predictive entropy (nats)")
        axes.set_ylabel("density")
        axes.legend(fontsize=8)
    save_png(figure, path)


_BOXES = {
    "ResidualBlock": "residual block", "DownsampleBlock": "downsample", "Dense": "dense"
}  # fmt: skip


def _histories(folder: Path | None) -> list[list[dict]]:
    paths = sorted(folder.glob("seed*_fold*/history.csv")) if folder else ()
    return [read_csv(path) for path in paths]


def _first_year(group: str) -> int:
    digits = "".join(c if c.isdigit() else " " for c in group).split()
    return int(digits[0]) if digits else -1
