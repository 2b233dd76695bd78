"""One training in one run folder: make the model, fit it, measure it, write what came out."""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import keras

from kerasmlp.runs.environment import environment
from kerasmlp.runs.model import save_model
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import report_of_finished
from kerasmlp.training.events import EVENT_FILES, event_logs_of
from kerasmlp.training.fit import Course, fit
from kerasmlp.utils.checks import DivergedError
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import write_text
from kerasmlp.utils.tables import csv_of


@dataclass(frozen=True)
class Measured:
    """What came of a training.

    Attributes:
        model: To save, in float32.
        report: What `report.json` says about it, beside what it says of every training.
        pictures: From the name of a PNG to what draws it at a path.
    """

    model: keras.Model
    report: dict[str, Any]
    pictures: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)

    @property
    def trainable_parameters(self) -> int:
        return sum(math.prod(w.shape) for w in self.model.trainable_weights)

    def save(self, run: RunFolder, history: list[dict]) -> None:
        """Writes model and history, and draws the pictures."""
        write_text(run / "history.csv", csv_of(history))
        save_model(run, self.model)
        for name, draw in self.pictures.items():
            with drawing(run / name) as path:
                draw(path)


class Training(Protocol):
    """What one kind of training hands in.

    Attributes:
        config: Decides the result, among it its `kind`, `precision`, `seed` and `data_digest`.
        files: That it writes, beside those of every run; see `RunFolder.working`.
    """

    config: dict[str, Any]
    files: tuple[str, ...]

    def make(self) -> keras.Model:
        """The model, compiled, before its first epoch."""

    def course(self, model: keras.Model) -> Course:
        """What the model goes through."""

    def measure(
        self, model: keras.Model, history: list[dict], run: RunFolder, *, progress: bool
    ) -> Measured:
        """What came of it; may write files of its own into the folder, and add to the history."""


def train_run(
    training: Training,
    run_dir: str | os.PathLike,
    *,
    resume: bool,
    force: bool = False,
    started: float | None = None,
    keep_diverged: bool = False,
    on_epoch: Callable[[int], None] = lambda done: None,
    progress: bool = False,
) -> dict:
    """Trains into a run folder, or goes on with it; a finished run is not computed again.

    Args:
        started: When the work began, which the report's seconds count from; None: now.
        keep_diverged: Whether weights that diverge are a result: then the report holds
            `diverged`, the sentence that says so, and no measures.
        on_epoch: Told the number of epochs done after each.

    Returns:
        The report, as in `report.json`.

    Raises:
        InputError: if the folder cannot be used; a `DivergedError` if the weights diverge.
    """
    started, config, run = started or time.time(), training.config, RunFolder(run_dir)
    with run.working(config, resume=resume, force=force, files=[*training.files, EVENT_FILES]):
        if run.done:
            run.check_files()  # what is said to be finished must be what was written
            return report_of_finished(run, keep_diverged=keep_diverged)
        model = training.make()
        kept = {"checkpoint_path": run / "checkpoint.npz", "history_path": run / "history.csv"}
        try:
            course = training.course(model)
            logs = event_logs_of(run)
            course = replace(course, callbacks=[*course.callbacks, *logs])
            try:
                history, stopped = fit(model, course, **kept, on_epoch=on_epoch, progress=progress)
            finally:
                for log in logs:
                    log.close()
            seconds = {"fit": time.time() - started}
            if progress:
                print("measuring on the rows kept back, and calibrating", file=sys.stderr)
            measured = training.measure(model, history, run, progress=progress)
        except DivergedError as error:
            if not keep_diverged:
                raise
            for path in kept.values():
                path.unlink(missing_ok=True)
            report = {"diverged": str(error), "seed": config["seed"], **environment()}
        else:
            measured.save(run, history)
            seconds |= {"total": time.time() - started} | measured.report.get("seconds", {})
            report = measured.report | {
                "epochs": len(history),
                "stopped_early": stopped,
                "trainable_parameters": measured.trainable_parameters,
                "seconds": seconds,
                **{name: config[name] for name in ("precision", "seed", "data_digest")},
                **environment(),
            }
        run.finish(report)
        return report
