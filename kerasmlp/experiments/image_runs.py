"""Many trainings on images, a run folder each, one table: what the experiments on images share."""

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from kerasmlp.experiments.grid import Grid
from kerasmlp.experiments.image_plan import ImagePlan
from kerasmlp.experiments.summary import markdown_lines, mean_and_std, summarize
from kerasmlp.training.figures import band, over_epochs
from kerasmlp.training.image_batches import ImageSet
from kerasmlp.training.train_run import Training, train_run
from kerasmlp.utils.checks import DivergedError
from kerasmlp.utils.tables import read_csv


@dataclass(frozen=True)
class ImageExperiment:
    """A plan, what trains a run of it, and how its results are shown.

    Attributes:
        kind: As `config.json` says it.
        plan: What to compute; its runs have a `name`.
        training: From data, plan, run and the data's digest to what `train_run` takes.
        keys: Of a report, what tells the run.
        numbers: Of a report, what is averaged over seeds; the seconds go with them.
        panels: Columns of a history to draw over the epochs, with their titles.
        title_of: From a row to the name of its line in the table.
        caption: Of the table, with `{seeds}`.
        columns: Of the table, each with the cell of a `title`, its `place` in the table and
            the means and deviations of its numbers.
    """

    kind: str
    plan: ImagePlan
    training: Callable[..., Training]
    keys: tuple[str, ...]
    numbers: tuple[str, ...]
    panels: dict[str, str]
    title_of: Callable[[dict], str]
    caption: str
    columns: dict[str, Callable[[dict], str]]

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

    def markdown_of(self, summary: dict[str, dict]) -> str:
        """The table: one line per title."""
        lines = [
            [cell({"place": place, "title": title, **values}) for cell in self.columns.values()]
            for place, (title, values) in enumerate(summary.items(), 1)
        ]
        seeds = f"{len(self.plan.seeds)} seed{'s' * (len(self.plan.seeds) > 1)}"
        table = markdown_lines(list(self.columns), lines)
        return "\n".join([self.caption.format(seeds=seeds), "", *table]) + "\n"


def percent_of(name: str) -> Callable[[dict], str]:
    """A column: mean and deviation of a share."""
    return lambda values: mean_and_std(values[name], percent=True)


def whole_seconds(values: dict) -> str:
    """A column: how long a training took."""
    return f"{values['seconds']['mean']:.0f}"


def run_experiment(
    experiment: ImageExperiment,
    data: ImageSet,
    run_dir: str | os.PathLike,
    *,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Trains every run of a plan and writes the table, one after the other.

    Killed at any moment and started again with `resume=True`, finished runs are
    not computed again, the others go on from their last epoch, and the
    accuracies are those of an uninterrupted experiment.

    Args:
        data: Images; the test part is measured after every epoch, as in the papers.
        run_dir: Folder to write, a run folder with one more per run in it.
        resume, force, progress: As of `train`.

    Returns:
        The report, as in `report.json`: `summary` holds for each title mean and
        standard deviation over seeds, `runs` the rows.

    Raises:
        InputError: if the data do not suit the plan, the folder cannot be used, or
            every run diverged; one that did is named and left out.
    """
    started, plan = time.time(), experiment.plan
    plan.check(data)
    config = {"kind": experiment.kind, **plan.to_config(), "data_digest": data.digest()}
    grid = Grid(run_dir, [run.name for run in plan.runs()])
    with grid.folder.working(config, resume=resume, force=force, files=grid.files):
        if grid.folder.done:
            return grid.folder.report()
        reports, diverged = _train_all(experiment, data, grid, progress)
        rows = [experiment.row_of(report) for report in reports.values()]
        report = {
            "summary": experiment.summarize(rows),
            "runs": rows,
            "diverged": diverged,
            "rows": {"training": len(data.train), "test": len(data.test)},
            "trainable_parameters": next(iter(reports.values()))["trainable_parameters"],
            "seconds": {"total": time.time() - started},
        }
        table = experiment.markdown_of(report["summary"])
        if diverged:
            table += f"\nDiverged and left out: {', '.join(diverged)}.\n"
        histories: dict[str, list[list[dict]]] = {}
        for name, of in reports.items():
            history = read_csv(grid.folder / name / "history.csv")
            histories.setdefault(experiment.title_of(of), []).append(history)
        draw = functools.partial(_draw, histories, experiment.panels)
        return grid.finish(rows, table, report, draw)


def _train_all(
    experiment: ImageExperiment, data: ImageSet, grid: Grid, progress: bool
) -> tuple[dict[str, dict], list[str]]:
    """Reports by name, and the names of those that diverged; an error if all did."""
    reports, diverged, plan = {}, {}, experiment.plan
    digest, runs = grid.folder.config()["data_digest"], plan.runs()
    with tqdm(total=len(runs) * plan.epochs, unit="epoch", disable=not progress) as bar:
        for number, (run, folder) in enumerate(zip(runs, grid.runs, strict=True), 1):
            bar.set_description(run.name)
            try:
                training = experiment.training(data, plan, run, digest)
                reports[run.name] = train_run(
                    training, folder.path, resume=True, on_epoch=lambda done: bar.update()
                )
            except DivergedError as error:  # the others are results all the same
                diverged[run.name] = error
            bar.update(number * plan.epochs - bar.n)  # what was left out, or done before
    if not reports:
        raise next(iter(diverged.values()))
    return reports, list(diverged)


def _draw(
    histories: dict[str, list[list[dict]]], panels: dict[str, str], path: str | os.PathLike
) -> None:
    """Draws columns of histories over epochs: means over seeds, and from least to largest."""
    from matplotlib.figure import Figure

    from kerasmlp.utils.figures import save_png

    figure = Figure(figsize=(4 * len(panels), 3.4), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for title, runs in histories.items():
            values = np.array([[float(row.get(name, 0)) for row in history] for history in runs])
            edges = values.min(axis=0), values.max(axis=0)
            band(axes, values.mean(axis=0), *edges, label=title, linewidth=0)
        axes.set_title(label, fontsize=10)
        over_epochs(axes)
    figure.axes[0].legend(fontsize=8)
    save_png(figure, path)
