"""How long an experiment will take, from a short run of it."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from kerasmlp.experiments.cross_validation.plan import plan_runs
from kerasmlp.experiments.cross_validation.trainer import MAX_MODELS, TrainingPool
from kerasmlp.experiments.residual_mlp.design import INITS, VARIANTS, Experiment, Task
from kerasmlp.experiments.tuning.trial import TrialRunner
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.xla import xla_pays
from kerasmlp.utils.processes import number_of_workers

_SHORT_EPOCHS = 2


def estimate_seconds(
    experiment: Experiment, *, workers: int | None = None
) -> dict[str, dict[str, float]]:
    """Trains each task for two epochs and reckons up from there.

    Returns:
        Per task `compiling` (seconds of a worker's start and compiler),
        `epoch` (of one run), `around` (of one run beside its epochs),
        `cross_validations` and `pretraining`: at most so long in all, because
        early stopping is not reckoned with; `search`: about so long.
    """
    workers = number_of_workers(workers)
    pretraining, store = experiment.pretraining_store, experiment.store
    plans, result = experiment.searches(), {}
    for task in experiment.tasks:
        measured = _short_run(experiment, task, workers)
        steps = [run.steps_per_epoch for run in plan_runs(store, experiment.plan(task))]
        runs, shapes = len(steps), len(set(steps))
        # A worker compiles each shape once for both initialisations, if it keeps that many.
        compilations = shapes * (1 if shapes <= MAX_MODELS else len(INITS))
        run = measured["around"] + task.recipe.epochs * measured["epoch"]
        rounds = -(-runs // workers)
        share = len(pretraining) / (len(store) * (1 - 1 / max(runs // len(experiment.seeds), 2)))
        pretrainings = sum(t.name == task.name for t in experiment.pretrainings().values())
        variant = compilations * measured["compiling"] + len(INITS) * rounds * run
        fit = experiment.pretraining_epochs * measured["epoch"] * share
        once = measured["compiling"] + measured["around"] + fit
        result[task.name] = measured | {
            "cross_validations": len(VARIANTS) * variant,
            "pretraining": pretrainings * once,
            "search": 0.0,
        }
        if plan := plans.pop(task.pretraining, None):
            runner = TrialRunner(pretraining, plan)
            cost = runner.measure_cost(xla=plan.uses_xla(len(runner.rows)))
            result[task.name]["search"] = cost.seconds(plan, workers)
    return result


def _short_run(experiment: Experiment, task: Task, workers: int) -> dict[str, float]:
    # Enough seeds for every worker to train twice: only the second time nothing is compiled.
    seeds = range(experiment.seed, experiment.seed + 2 * workers)
    plan = experiment.plan(task)
    recipe = plan.recipe.replace(epochs=_SHORT_EPOCHS, patience=None)
    plan = replace(plan, recipe=recipe, seeds=tuple(seeds))
    runs, numbers = plan_runs(experiment.store, plan), range(2 * workers)
    steps = [run.steps_per_epoch for run in runs]
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "store": str(Path(experiment.store_path).resolve()),
            "plan": plan.to_config(),
            "run_dir": folder,
            "xla": xla_pays(task.recipe, steps[0]),  # as the runs that this one is the measure of
        }
        started = time.time()
        with TrainingPool(workers) as pool:
            ends = [time.time() - started for _ in pool.train(settings, numbers, steps)]
        reports = [RunFolder(Path(folder) / runs[n].name).report()["seconds"] for n in numbers]
    shared = min(reports, key=lambda seconds: seconds["total"])  # by a worker that has compiled
    return {
        "compiling": max(ends[0] - shared["total"], 0.0),
        "epoch": shared["fit"] / _SHORT_EPOCHS,
        "around": shared["total"] - shared["fit"],
    }
