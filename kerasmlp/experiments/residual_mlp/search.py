"""The experiment's search: hyperparameters found on the store to pre-train on, before all else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kerasmlp.experiments.residual_mlp.design import Experiment, Task


def with_searched_recipes(
    experiment: Experiment, folder: Path, *, workers: int, progress: bool = False
) -> tuple[Experiment, list[dict]]:
    """Searches, or goes on with it, and puts what was found into the recipes.

    Epochs and early stopping stay those of the presets.

    Args:
        experiment: Whose recipes to search; without `search_epochs` it stays as it is.
        folder: Of the experiment; each search is a run folder in its `search`.
        workers: Processes.
        progress: Show a bar.

    Returns:
        The experiment with the recipes found, and a row of values per search.
    """
    from kerasmlp.experiments.tuning.tune import tune

    found, rows = {}, []
    for name, plan in experiment.searches().items():
        report = tune(
            experiment.pretraining_path,
            plan,
            folder / "search" / name,
            workers=workers,
            resume=True,
            progress=progress,
        )
        found[name] = {key: report["best"][key] for key in plan.dimensions}
        rows.append({"task": name, "val_loss": report["best"]["val_loss"], **found[name]})

    def changed(task: Task) -> Task:
        values = found.get(task.pretraining, {})
        return replace(
            task, preset=task.preset.replace(**values), recipe=task.recipe.replace(**values)
        )

    return replace(experiment, tasks=tuple(map(changed, experiment.tasks))), rows
