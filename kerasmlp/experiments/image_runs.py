"""Many trainings on images, a run folder each, one table: what the experiments on images share."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kerasmlp.experiments.cross_validation.table import summarize
from kerasmlp.runs.run_folder import RunFolder, environment
from kerasmlp.training.image_batches import ImageSet
from kerasmlp.utils.checks import DivergedError, reject
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import write_text
from kerasmlp.utils.tables import csv_of, read_csv


class Plan(Protocol):
    """What to compute."""

    epochs: int
    batch_size: int

    def runs(self) -> list: ...

    def to_config(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Presentation:
    """How the results of an experiment are shown.

    Attributes:
        keys: Of a report, what tells the run.
        numbers: Of a report, what is averaged over seeds; the seconds go with them.
        panels: Columns of a history to draw over the epochs, with their titles.
        title_of: From a row to the name of its line in the table.
        markdown_of: From means and deviations by title to the table.
    """

    keys: tuple[str, ...]
    numbers: tuple[str, ...]
    panels: dict[str, str]
    title_of: Callable[[dict], str]
    markdown_of: Callable[[dict[str, dict]], str]

    def row_of(self, report: dict) -> dict:
        """One run as a flat row."""
        row = {k: report[k] for k in (*self.keys, *self.numbers)}
        return row | {"seconds": report["seconds"]["fit"]}

    def summarize(self, rows: Sequence[dict]) -> dict[str, dict]:
        """Mean and standard deviation over seeds of each number, by title."""
        by_title: dict[str, list[dict]] = {}
        for row in rows:
            values = {k: row[k] for k in (*self.numbers, "seconds")}
            by_title.setdefault(self.title_of(row), []).append(values)
        return {title: summarize(group) for title, group in by_title.items()}


def run_experiment(
    data: ImageSet,
    plan: Plan,
    run_dir: str | os.PathLike,
    kind: str,
    *,
    train: Callable[..., dict],
    presentation: Presentation,
    resume: bool,
    force: bool,
    progress: bool,
) -> dict:
    """Trains every run of a plan and writes the table, one after the other.

    Killed at any moment and started again with `resume=True`, finished runs are
    not computed again, the others go on from their last epoch, and the
    accuracies are those of an uninterrupted experiment.

    Args:
        data: Images.
        plan: What to compute.
        run_dir: Folder to write, a run folder with one more per run in it.
        kind: Of the experiment, as its `config.json` says.
        train: As `train_layer_out`.
        presentation: Of the results.
        resume: Go on with a killed experiment.
        force: Replace what is in the folder.
        progress: Show a bar over epochs.

    Returns:
        The report, as in `report.json`: `summary` holds for each title mean and
        standard deviation over seeds, `runs` the rows.

    Raises:
        InputError: if the data do not suit the plan, the folder cannot be used, or
            every run diverged; one that did is named and left out.
    """
    started = time.time()
    if plan.batch_size > len(data.x_train):
        requirement = f"must be at most the {len(data.x_train)} images to train on"
        reject("batch_size", requirement, plan.batch_size)
    digest = data.digest()
    config = {"kind": kind, **plan.to_config(), "data_digest": digest}
    folder = RunFolder(run_dir)
    runs = plan.runs()
    files = ("runs.csv", "table.md", "curves.png", *(f"{run.name}/" for run in runs))
    with folder.working(config, resume=resume, force=force, files=files):
        if folder.done:
            return folder.report()
        reports, histories, diverged = [], {}, {}
        with _bar(len(runs) * plan.epochs, progress) as bar:
            for run in runs:
                run_folder = RunFolder(folder / run.name)
                shown = bar.n
                bar.set_description(run.name)
                try:
                    report = train(
                        data, plan, run, run_folder.path, data_digest=digest, on_epoch=bar.update
                    )
                except DivergedError as error:  # the others are results all the same
                    diverged[run.name] = error
                    bar.update(shown + plan.epochs - bar.n)
                    continue
                bar.update(shown + plan.epochs - bar.n)  # what an earlier process did
                reports.append(report)
                title = presentation.title_of(report)
                histories.setdefault(title, []).append(read_csv(run_folder / "history.csv"))
        if not reports:
            raise next(iter(diverged.values()))
        rows = [presentation.row_of(report) for report in reports]
        summary = presentation.summarize(rows)
        write_text(folder / "runs.csv", csv_of(rows))
        table = presentation.markdown_of(summary)
        if diverged:
            table += f"\nDiverged and left out: {', '.join(diverged)}.\n"
        write_text(folder / "table.md", table)
        report = {
            "summary": summary,
            "runs": rows,
            "diverged": list(diverged),
            "rows": {"training": len(data.x_train), "test": len(data.x_test)},
            "trainable_parameters": reports[0]["trainable_parameters"],
            "seconds": {"total": time.time() - started},
            "data_digest": digest,
            **environment(),
        }
        with drawing(folder / "curves.png") as path:
            draw(histories, presentation.panels, path)
        folder.finish(report)
        return report


def draw(
    histories: dict[str, list[list[dict]]], panels: dict[str, str], path: str | os.PathLike
) -> None:
    """Draws columns of histories over epochs: means over seeds, and from least to largest.

    Args:
        histories: For each title the histories of its runs.
        panels: Columns with their titles.
        path: Of the PNG.
    """
    from matplotlib.figure import Figure

    from kerasmlp.utils.figures import save_png

    figure = Figure(figsize=(4 * len(panels), 3.4), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for title, runs in histories.items():
            values = np.array([[float(row.get(name, 0)) for row in history] for history in runs])
            epochs = np.arange(1, values.shape[1] + 1)
            (line,) = axes.plot(epochs, values.mean(axis=0), marker=".", markersize=3, label=title)
            edges = values.min(axis=0), values.max(axis=0)
            axes.fill_between(epochs, *edges, alpha=0.15, color=line.get_color(), linewidth=0)
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    save_png(figure, path)


def percent(values: dict) -> str:
    """As `93.61 ± 0.12`; a single run has no deviation.

    Example:

    >>> percent({"mean": 0.9361, "std": None})
    '93.61'
    """
    std = "" if values["std"] is None else f" ± {100 * values['std']:.2f}"
    return f"{100 * values['mean']:.2f}{std}"


@contextlib.contextmanager
def _bar(total: int, progress: bool):
    from tqdm import tqdm

    with tqdm(total=total, unit="epoch", disable=not progress) as bar:
        yield bar
