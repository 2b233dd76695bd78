"""Runs the whole experiment in one folder, and goes on where it was killed."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.cross_validation.cross_validate import cross_validate
from kerasmlp.experiments.cross_validation.trainer import TrainingPool
from kerasmlp.experiments.grid import Grid
from kerasmlp.experiments.residual_mlp.claims import check_claims
from kerasmlp.experiments.residual_mlp.design import Experiment, Folders, Task
from kerasmlp.experiments.residual_mlp.faces import check_photos, draw_extreme_faces
from kerasmlp.experiments.residual_mlp.report import write_report
from kerasmlp.experiments.residual_mlp.table import long_table, table_markdown
from kerasmlp.runs.environment import environment
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.precision import default_policy
from kerasmlp.utils.files import write_text
from kerasmlp.utils.processes import number_of_workers
from kerasmlp.utils.tables import csv_of

KIND = "experiment"
_SETTINGS = ("seeds", "num_folds", "pretraining_epochs", "search_epochs")
_FIGURES = ("distributions", "network-*", "losses-*", "entropies", "faces")
_FILES = (
    "table.md", "table.csv", "claims.csv", "search.csv", "report.html", "search/*/",
    "pretraining/*/", "cross-validation/*/", *(f"figures/{name}.png" for name in _FIGURES),
)  # fmt: skip


def reproduce(
    experiment: Experiment,
    run_dir: str | os.PathLike,
    *,
    workers: int | None = None,
    photos: Path | None = None,
    model_dir: str | os.PathLike | None = None,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Pre-trains every variant, cross-validates it from both initialisations, compares.

    Args:
        experiment: What to do.
        run_dir: Folder to write: `pretraining/<task>-<variant>` and
            `cross-validation/<task>-<variant>-<init>` are run folders, as are those in
            `search`, where the experiment searches the recipes first; `report.html`
            has all of it.
        workers: Processes of a cross-validation; None takes as many as cores.
        photos: Folder whose surest and least sure faces are drawn, or None.
        model_dir: Face models for `photos`.
        resume, force, progress: As of `cross_validate`.

    Returns:
        The report, as in `report.json`: `rows` of the table, `claims`, `search`.

    Raises:
        InputError: if the stores cannot be used so.
    """
    started = time.time()
    how = {"workers": number_of_workers(workers), "progress": progress}
    experiment.check()
    if photos is not None:
        check_photos(photos, model_dir, experiment.store)
    folder, config = RunFolder(run_dir), _config_of(experiment)
    with folder.working(config, resume=resume, force=force, files=_FILES):
        faces = folder / "figures" / "faces.png"
        if folder.done and (photos is None or faces.is_file()):
            return folder.report()
        (folder / "DONE").unlink(missing_ok=True)  # what follows is written once more
        experiment, searched = with_searched_recipes(experiment, folder.path, **how)
        inits = _pretrain(experiment, folder.path, progress)
        folders = _cross_validate(experiment, inits, folder.path, **how)
        report = {
            **_results(folder, folders, experiment.store, searched),
            "pretraining": {"-".join(k): RunFolder(v).report() for k, v in inits.items()},
            "seconds": time.time() - started,
            **{name: config[name] for name in ("store_digest", "pretraining_digest")},
            **environment(),
        }
        full = [run for (_, variant), run in inits.items() if variant == "full"]
        full = [run for run in full if not _diverged(run)]
        if photos is not None and full:
            faces.parent.mkdir(exist_ok=True)
            drawn = {"seed": experiment.seed, "progress": progress}
            draw_extreme_faces(full, photos, model_dir, faces, **drawn)
        write_report(folder.path, experiment, report, folders)
        folder.finish(report)
        return report


def with_searched_recipes(
    experiment: Experiment, folder: Path, *, workers: int, progress: bool = False
) -> tuple[Experiment, list[dict]]:
    """Searches, or goes on with it; puts what was found into the recipes, and into a row for each.

    Epochs and early stopping stay those of the presets.
    """
    from kerasmlp.experiments.tuning.tune import tune

    if experiment.search_epochs is None:
        return experiment, []
    found, rows = {}, []
    for name, plan in experiment.searches().items():
        how = {"workers": workers, "resume": True, "progress": progress}
        report = tune(experiment.pretraining_path, plan, folder / "search" / name, **how)
        found[name] = {key: report["best"][key] for key in plan.dimensions}
        rows.append({"task": name, "val_loss": report["best"]["val_loss"], **found[name]})

    def changed(task: Task) -> Task:
        preset, recipe = (r.replace(**found[task.pretraining]) for r in (task.preset, task.recipe))
        return replace(task, preset=preset, recipe=recipe)

    return replace(experiment, tasks=tuple(map(changed, experiment.tasks))), rows


def _results(
    folder: RunFolder, folders: Folders, store: EmbeddingStore, searched: list[dict]
) -> dict[str, list[dict]]:
    """What all trainings come to, also written as tables."""
    rows = long_table(folders, store)
    tables = {"rows": rows, "claims": check_claims(folders), "search": searched}
    for name, table in (("table", "rows"), ("claims", "claims"), ("search", "search")):
        if tables[table]:
            write_text(folder / f"{name}.csv", csv_of(tables[table]))
    write_text(folder / "table.md", table_markdown(rows))
    return tables


def _config_of(experiment: Experiment) -> dict:
    return {
        "kind": KIND,
        "pretraining_digest": experiment.pretraining_store.digest(),
        "store_digest": experiment.store.digest(),
        **{k: getattr(experiment, k) for k in _SETTINGS},
        "presets": {t.name: t.preset.to_config() for t in experiment.tasks},
        "recipes": {t.name: t.recipe.to_config() for t in experiment.tasks},
        "classes": {t.name: t.target.classes for t in experiment.tasks},
        "tasks": [t.name for t in experiment.tasks],
        "precision": default_policy(),
    }


def _pretrain(experiment: Experiment, folder: Path, progress: bool) -> dict[tuple[str, str], Path]:
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    tasks, store = list(experiment.pretrainings().items()), experiment.pretraining_store
    recipes = [
        task.pretraining_recipe(variant, experiment.pretraining_epochs)
        for (_, variant), task in tasks
    ]

    def settings_of(number: int) -> dict:
        return {
            "target": tasks[number][1].pretraining_target.to_config(),
            "recipe": recipes[number].to_config(),
            "seed": experiment.seed,
            "data_digest": store.digest(),
        }

    grid = Grid(folder / "pretraining", [_slug(*key) for key, _ in tasks])
    todo = grid.pending(settings_of)
    if todo:
        import_tensorflow()
        from kerasmlp.training.embeddings import train
    bar = tqdm(todo, unit="pre-training", disable=not progress or not todo, file=sys.stderr)
    for number in bar:
        key, task = tasks[number]
        bar.set_description("pre-training " + " ".join(key))
        how = {"seed": experiment.seed, "keep_diverged": True, "pictures": False, "resume": True}
        train(store, task.pretraining_target, recipes[number], grid.runs[number].path, **how)
    return {key: run.path for (key, _), run in zip(tasks, grid.runs, strict=True)}


def _cross_validate(
    experiment: Experiment,
    inits: dict[tuple[str, str], Path],
    folder: Path,
    workers: int,
    progress: bool,
) -> Folders:
    folders: dict[tuple[str, str, str], Path | None] = {}
    tasks = {task.name: task for task in experiment.tasks}
    with (
        TrainingPool(workers) as pool,
        tqdm(experiment.steps(), unit="cross-validation", disable=not progress) as steps,
    ):
        for step in steps:
            steps.set_description(" ".join(step))
            name, variant, init = step
            task = tasks[name]
            run = inits[task.pretraining, variant] if init == "pretrained" else None
            if run is not None and _diverged(run):
                folders[step] = None
                continue
            plan = experiment.plan(task, variant, run)
            folders[step] = folder / "cross-validation" / _slug(*step)
            how = {"pool": pool, "keep_diverged": True, "resume": True}
            cross_validate(experiment.store_path, plan, folders[step], **how)
    return folders


def _diverged(run: Path) -> bool:
    return "diverged" in RunFolder(run).report()


def _slug(*words: str) -> str:
    return "-".join(word.replace(", ", "-").replace(" ", "-") for word in words)
