"""Searches the hyperparameters of a recipe by Hyperband, into one run folder."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmlp.data.joining import StorePaths, open_stores
from kerasmlp.experiments.tuning.plan import TuningPlan, describe, longest_within
from kerasmlp.experiments.tuning.search_files import (
    FILES,
    KIND,
    best_of,
    project_name,
    report_of_search,
    require_keras_tuner,
    settings_of_search,
    write_search,
)
from kerasmlp.experiments.tuning.space import recipe_of
from kerasmlp.experiments.tuning.spread import WorkerPool, search_with_workers
from kerasmlp.runs.environment import of_backend
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.blocks import at_hand, bytes_as_told, in_memory_in_config
from kerasmlp.training.precision import default_policy
from kerasmlp.utils.checks import check_optional_int, check_positive, reject
from kerasmlp.utils.files import write_json

if TYPE_CHECKING:
    from kerasmlp.experiments.tuning.search import Search


def tune(
    store_path: StorePaths,
    plan: TuningPlan,
    run_dir: str | os.PathLike,
    *,
    budget_minutes: float | None = None,
    any_epochs: bool = False,
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Searches by Hyperband and writes the best recipe as a preset, `best.json`.

    All trials are trained on the same rows from the same seed, and compared by
    the validation NLL of the deterministic model. Killed at any moment and
    started again with `resume=True`, the search ends with the same trials and
    the same best as one that was never interrupted, and so does one that is
    spread over workers (as far as one thread or two give the same bits).

    Args:
        store_path: Embedding store, or several, which are joined.
        plan: Target, space, epochs and seed.
        run_dir: Folder to write.
        budget_minutes: The search ends at the first epoch after this time, with
            the best so far; `resume=True` goes on.
        any_epochs: The plan's `max_epochs` may be replaced: by that of a search
            that is resumed, or by the largest whose plan fits the budget, as a
            short run is measured for each compiler that it may have.
        workers: Processes of one core each that run the trials; None: this one.
        resume: Go on with a killed search or one whose time was up.
        force: Replace what is in the folder.
        progress: Show a bar over epochs.
        say: Told the plan and its cost before the search begins.

    Returns:
        The report, as in `report.json`: `best` is the row of the best trial,
        `complete` is False where time was up.

    Raises:
        InputError: if the data cannot be trained on, the folder not used, or
            every trial diverged.
    """
    work = _Tuning(store_path, plan, RunFolder(run_dir), budget_minutes, workers)
    claim = work.claim(any_epochs, resume)
    with work.folder.working(claim, resume=resume, force=force, files=FILES):
        if work.folder.done:
            return report_of_search(work.folder)
        work.lay_out(say)
        with _bar(work.plan) if progress else contextlib.nullcontext(_silent) as on_progress:
            search = work.search(on_progress)
        return work.finish(search)


class _Tuning:
    """One search from its plan to its report, in the order of the methods."""

    def __init__(
        self,
        store_path: StorePaths,
        plan: TuningPlan,
        folder: RunFolder,
        budget_minutes: float | None,
        workers: int | None,
    ):
        self._started, clock = time.time(), time.monotonic()
        require_keras_tuner()
        self._workers = check_optional_int("workers", workers, minimum=0)
        self._seconds = self._deadline = None
        if budget_minutes is not None:
            self._seconds = 60 * check_positive("budget_minutes", budget_minutes)
            self._deadline = clock + self._seconds
        self._path, self._store = store_path, open_stores(store_path, group=plan.group)
        plan.check(plan.base.first_width(self._store.width, self._store.info.normalized))
        from kerasmlp.experiments.tuning.trial import rows_of

        rows_of(self._store, plan)  # what cannot be trained on leaves the folder as it is
        self.plan, self.folder = plan, folder

    def claim(self, any_epochs: bool, resume: bool) -> dict:
        """The settings by which the folder is claimed before anything is measured, if need be
        without the epochs."""
        before = settings_of_search(self.folder) if resume else None
        chosen = before.get("max_epochs") if before is not None else None
        if any_epochs and chosen is not None:
            self.plan, any_epochs = replace(self.plan, max_epochs=chosen), False
        self._by_budget = any_epochs and self._seconds is not None
        self._open = self._by_budget or (before is not None and chosen is None)
        plan, store = self.plan, self._store
        self._config = {
            "kind": KIND,
            **plan.to_config(),
            "dimensions": [f"{name}: {kind}" for name, kind in plan.dimensions.items()],
            "data_digest": store.digest(),
            "precision": default_policy(),
            "width": store.width,
            "standardized": plan.base.standardizes(store.info.normalized) or None,
            **store.info.of_embedder(),
            **of_backend(),
        }
        # The workers, and this process, which measures what they cost.
        rows = in_memory_in_config(store, 1 + (self._workers or 0))
        return self._config | rows | ({"max_epochs": None} if self._open else {})

    def lay_out(self, say: Callable[[str], None]) -> None:
        """Measures what the plan costs, and chooses its epochs where they are open."""
        from kerasmlp.experiments.tuning.trial import TrialRunner

        self._most_bytes = bytes_as_told(self.folder.config().get("in_memory"))
        self._store = at_hand(self._store, self._most_bytes)
        self._runner = TrialRunner(self._store, self.plan, self._most_bytes)
        rows, at_once = len(self._runner.rows.inputs), max(self._workers or 1, 1)
        cost_of = cache(lambda xla: self._runner.measure_cost(xla=xla))
        if self._by_budget:
            self.plan = longest_within(self.plan, rows, cost_of, self._seconds, at_once)
        cost = cost_of(self.plan.uses_xla(rows))
        if self._open:
            self._config |= {"max_epochs": self.plan.max_epochs}
            write_json(self.folder / "config.json", self.folder.config() | self._config)
        say(describe(self.plan, cost, at_once))
        if self._seconds is not None and cost.seconds(self.plan, at_once) > self._seconds:
            say(f"it will be stopped after {self._seconds / 60:g} min with the best so far")

    def search(self, on_progress: Callable) -> Search:
        """Runs the trials, here or in workers, until there are no more or time is up."""
        what = self.plan, self.folder, self._config
        if self._workers is not None:
            paths = self._path, self.folder.path.resolve()
            pool = WorkerPool(*paths, self._workers)
            return search_with_workers(*what, pool, self._deadline, on_progress)
        from kerasmlp.experiments.tuning.search import Search
        from kerasmlp.experiments.tuning.trial import TrialRunner

        how = {"deadline": self._deadline, "on_progress": on_progress}
        runner = TrialRunner(self._store, self.plan, self._most_bytes)
        search = Search(*what, runner, **how)
        search.run()
        return search

    def finish(self, search: Search) -> dict:
        """Writes what was found; returns the report."""
        plan, rows = self.plan, search.state.rows()
        if not rows:
            reject("--budget-minutes", "must be enough for one trial", (self._seconds or 0) / 60)
        best, complete = best_of(plan, rows), len(rows) == plan.num_trials
        report = {
            "best": best,
            "complete": complete,
            "project": project_name(self._config),
            "trials": {
                "run": len(rows),
                "planned": plan.num_trials,
                "diverged": sum(not math.isfinite(row["val_loss"]) for row in rows),
            },
            "max_epochs": plan.max_epochs,
            "epochs": {
                "run": sum(row["epochs"] - row["first_epoch"] for row in rows),
                "planned": plan.num_epochs,
            },
            "rows": {
                "training": len(self._runner.rows.inputs),
                "validation": len(self._runner.rows.part_inputs),
            },
            "seconds": {
                "total": time.time() - self._started,
                "trials": sum(row["seconds"] for row in rows),
            },
        }
        recipe = recipe_of(plan.recipe, {name: best[name] for name in plan.dimensions})

        def draw(path: Path) -> None:
            from kerasmlp.experiments.tuning import figures

            figures.trials(plan, rows, best, path)

        what = recipe.to_config(), rows, report, draw
        report = write_search(self.folder, *what, complete=complete)
        if complete:
            for trial_id in search.state.trials:
                search.state.checkpoint_of(trial_id).unlink(missing_ok=True)
        return report


def _silent(*_: object) -> None:
    pass


@contextlib.contextmanager
def _bar(plan: TuningPlan):
    from tqdm import tqdm

    with tqdm(total=plan.num_epochs, desc="search", unit="epoch") as bar:

        def show(oracle, epochs: int) -> None:
            done = oracle.completed()
            if not bar.n and done:
                bar.initial = epochs  # of an earlier process: they are no measure of this one
            bar.n = epochs
            best = min((t.score for t in done), default=math.inf)
            bar.set_postfix_str(f"{len(done)}/{plan.num_trials} trials, best {best:.4f}")

        yield show
