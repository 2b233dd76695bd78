"""The experiment's search: hyperparameters found on the store to pre-train on, before all else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kerasmlp.experiments.residual_mlp.design import Experiment, Task
from kerasmlp.experiments.tuning.plan import TuningPlan
from kerasmlp.utils.processes import num_cores


def search_plans(experiment: Experiment) -> dict[str, TuningPlan]:
    """The Hyperband search of each pre-training, over the paper's space.

    Example:

    >>> search_plans(Experiment(pretraining_path="a.h5", store_path="b.h5", tasks=()))
    {}
    """
    if experiment.search_epochs is None:
        return {}
    tasks = {name: task for (name, _), task in experiment.pretrainings().items()}
    return {
        name: TuningPlan(
            target=task.pretraining_target,
            base=task.preset,
            space="paper",
            max_epochs=experiment.search_epochs,
            seed=experiment.seed,
        )
        for name, task in tasks.items()
    }


def with_searched_recipes(
    experiment: Experiment, folder: Path, *, workers: int | None = None, progress: bool = False
) -> tuple[Experiment, list[dict]]:
    """Searches, or goes on with it, and puts what was found into the recipes.

    Epochs and early stopping stay those of the presets.

    Args:
        experiment: With `search_epochs`.
        folder: Of the experiment; each search is a run folder in its `search`.
        workers: Processes; None takes as many as cores.
        progress: Show a bar.

    Returns:
        The experiment with the recipes found, and a row of values per search.
    """
    from kerasmlp.experiments.tuning.tune import tune

    found, rows = {}, []
    for name, plan in search_plans(experiment).items():
        report = tune(
            experiment.pretraining_path,
            plan,
            folder / "search" / name,
            workers=workers or num_cores(),
            resume=True,
            progress=progress,
        )
        found[name] = {key: report["best"][key] for key in plan.dimensions}
        rows.append({"task": name, "val_loss": report["best"]["val_loss"], **found[name]})

    def changed(task: Task) -> Task:
        values = found[task.pretraining]
        return replace(
            task, preset=task.preset.replace(**values), recipe=task.recipe.replace(**values)
        )

    return replace(experiment, tasks=tuple(map(changed, experiment.tasks))), rows
