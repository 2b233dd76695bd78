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

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.tuning.plan import (
    LONGEST_EPOCHS,
    Cost,
    TuningPlan,
    describe,
    longest_within,
)
from kerasmlp.experiments.tuning.search_files import (
    FILES,
    KIND,
    project_name,
    report_of_search,
    require_keras_tuner,
    settings_of_search,
)
from kerasmlp.experiments.tuning.space import recipe_of
from kerasmlp.experiments.tuning.spread import WorkerPool, search_in, search_with_workers
from kerasmlp.experiments.tuning.table import best_of, rows_of
from kerasmlp.runs.environment import environment
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.precision import default_policy
from kerasmlp.utils.checks import check_int, check_positive, check_seed, reject
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import write_json, write_text
from kerasmlp.utils.tables import csv_of


def tune(
    store_path: str | os.PathLike,
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
        store_path: Embedding store.
        plan: Target, space, epochs and seed.
        run_dir: Folder to write.
        budget_minutes: The search ends at the first epoch after this time, with
            the best so far; `resume=True` goes on.
        any_epochs: The plan's `max_epochs` may be replaced: by that of a search
            that is resumed, or by the largest whose plan fits the budget, as a
            short run is measured for each compiler that it may have.
        workers: Processes that run the trials, with one core each; None runs
            them here.
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
    started, clock = time.time(), time.monotonic()
    require_keras_tuner()
    check_int("seed", plan.seed, minimum=0)
    check_seed(plan.seed)
    if not 0 < plan.validation_share < 1:
        reject("validation_share", "must be in (0, 1)", plan.validation_share)
    check_int("factor", plan.factor, minimum=2)
    if check_int("max_epochs", plan.max_epochs, minimum=1) > LONGEST_EPOCHS:
        reject("max_epochs", f"must be at most {LONGEST_EPOCHS}", plan.max_epochs)
    if workers is not None:
        check_int("workers", workers, minimum=0)
    if budget_minutes is not None:
        check_positive("budget_minutes", budget_minutes)
    store, folder = EmbeddingStore.open(store_path, verify=True), RunFolder(run_dir)
    plan.check(store.width)
    from kerasmlp.experiments.tuning.trial import TrialRunner

    runner = TrialRunner(store, plan)
    before = settings_of_search(folder) if resume else None
    chosen = before["max_epochs"] if before is not None else None
    if any_epochs and chosen is not None:
        plan, any_epochs = replace(plan, max_epochs=chosen), False
    config = _config_of(plan, store)
    # The folder is claimed before anything is measured, if need be by a plan without its epochs.
    by_budget = any_epochs and budget_minutes is not None
    open_plan = by_budget or (before is not None and chosen is None)
    claim = config | {"max_epochs": None} if open_plan else config
    with folder.working(claim, resume=resume, force=force, files=FILES):
        if folder.done:
            return report_of_search(folder)
        seconds = None if budget_minutes is None else 60 * budget_minutes
        at_once = max(workers or 1, 1)
        plan, cost = _costed(plan, runner, seconds if by_budget else None, at_once)
        if open_plan:
            config |= {"max_epochs": plan.max_epochs}
            write_json(folder / "config.json", folder.config() | config)
        say(describe(plan, cost, at_once))
        if seconds is not None and cost.seconds(plan, at_once) > seconds:
            say(f"it will be stopped after {budget_minutes:g} min with the best so far")
        deadline = None if seconds is None else clock + seconds
        with _bar(plan) if progress else contextlib.nullcontext(_silent) as on_progress:
            if workers is None:
                options = {"deadline": deadline, "on_progress": on_progress}
                search = search_in(folder, plan, config, TrialRunner(store, plan), **options)
                search.run()
            else:
                pool = WorkerPool(Path(store_path).resolve(), folder.path.resolve(), workers)
                search = search_with_workers(folder, plan, config, pool, deadline, on_progress)
        rows = rows_of(plan, search.state.completed())
        if not rows:
            reject("--budget-minutes", "must be enough for one trial", budget_minutes)
        complete = len(rows) == plan.num_trials
        sizes = {"training": len(runner.rows), "validation": len(runner.part)}
        report = _write(folder, plan, rows, config, complete, sizes, time.time() - started)
        if complete:
            for trial_id in search.state.trials:
                search.state.checkpoint_of(trial_id).unlink(missing_ok=True)
        return report


def _config_of(plan: TuningPlan, store: EmbeddingStore) -> dict:
    return {
        "kind": KIND,
        **plan.to_config(),
        "dimensions": [f"{name}: {kind}" for name, kind in plan.dimensions.items()],
        "data_digest": store.digest(),
        "precision": default_policy(),
        "width": store.width,
        "embedder": store.info.embedder,
        "embedder_sha256": store.info.embedder_sha256,
        "normalized": store.info.normalized,
    }


def _costed(
    plan: TuningPlan, runner, budget: float | None, workers: int
) -> tuple[TuningPlan, Cost]:
    """The plan, the longest within a budget where there is one, and what it costs."""
    rows, cost_of = len(runner.rows), cache(lambda xla: runner.measure_cost(xla=xla))
    if budget is not None:
        plan = longest_within(plan, rows, cost_of, budget, workers)
    return plan, cost_of(plan.uses_xla(rows))


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


def _write(
    folder: RunFolder,
    plan: TuningPlan,
    rows: list[dict],
    config: dict,
    complete: bool,
    sizes: dict[str, int],
    total: float,
) -> dict:
    best = best_of(plan, rows)
    recipe = recipe_of(plan.recipe, {name: best[name] for name in plan.dimensions})
    write_json(folder / "best.json", recipe.to_config())
    write_text(folder / "trials.csv", csv_of(rows))
    report = {
        "best": best,
        "complete": complete,
        "project": project_name(config),
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
        "rows": sizes,
        "seconds": {"total": total, "trials": sum(row["seconds"] for row in rows)},
        "seed": plan.seed,
        "data_digest": config["data_digest"],
        **environment(),
    }
    with drawing(folder / "trials.png") as path:
        from kerasmlp.experiments.tuning import figures as plots

        plots.trials(plan, rows, best, path)
    if complete:
        folder.finish(report)
    else:
        write_json(folder / "report.json", report)
    return report
