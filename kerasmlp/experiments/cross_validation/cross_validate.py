"""Cross-validates one recipe: seeds × folds, a run folder each, one table."""

import collections
import math
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from tqdm import tqdm

from kerasmlp.data.joining import StorePaths, absolute, open_stores
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.evaluation.predictions_file import require_pyarrow
from kerasmlp.experiments.cross_validation.fold_copies import fold_copies
from kerasmlp.experiments.cross_validation.out_of_fold import (
    FILES,
    has_predictions,
    join_parts,
    without_part,
)
from kerasmlp.experiments.cross_validation.plan import (
    MAX_SEEDS,
    CrossValidationPlan,
    PlannedRun,
    folds_digest,
    has_folds,
    plan_runs,
    settings_of,
)
from kerasmlp.experiments.cross_validation.ray_runs import trainers_of
from kerasmlp.experiments.cross_validation.side_by_side import runs_abreast
from kerasmlp.experiments.cross_validation.table import (
    markdown_of,
    of_heads,
    row_of,
    with_exact_years,
)
from kerasmlp.experiments.cross_validation.trainer import TrainingPool
from kerasmlp.experiments.grid import Grid
from kerasmlp.experiments.summary import summarize
from kerasmlp.runs.environment import of_backend
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import read_report, target_of
from kerasmlp.training.blocks import in_memory_in_config, require_room
from kerasmlp.training.initial_weights import check_init, check_untested
from kerasmlp.utils.checks import DivergedError, is_number, reject_file
from kerasmlp.utils.files import sha256_file
from kerasmlp.utils.schema import (
    check_object,
    dict_of,
    fields,
    flag,
    kind,
    list_of,
    number,
    one_of,
    optional,
    text,
    whole,
)
from kerasmlp.utils.tables import read_csv

KIND = "cross-validation"
_SEED = whole(0, (1 << 31) - 1)
_CONFIG = {
    "data_digest": text(200),
    "seeds": list_of(_SEED, MAX_SEEDS),
    "num_folds": whole(2, 1_000_000),
    "folds_from": one_of("column", "seed"),
    "folds_digest": text(200),
    "target": dict_of(kind("anything", lambda value: True)),
    "group": optional(text(10_000)),
    "in_memory": optional(flag),
}
_MEASURE = kind("a finite number, or true or false", lambda v: is_number(v) or v is True)
_REPORT = {
    "runs": list_of(dict_of(_MEASURE)),
    "summary": dict_of(fields({"mean": number(), "std": optional(number())})),
    "diverged": whole(0, 1_000_000),
    "test_share": number(0, 1_000_000),
    "precision": optional(text(100)),
    "seconds": fields({"total": number()}),
}


def cross_validate(
    store_path: StorePaths,
    plan: CrossValidationPlan,
    run_dir: str | os.PathLike,
    *,
    workers: int | None = None,
    engine: str = "local",
    side_by_side: int | None = None,
    pool: TrainingPool | None = None,
    keep_diverged: bool = False,
    save_predictions: bool = False,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Trains and tests every seed × fold of a plan.

    Each run keeps its rows for validation inside the training folds, and its
    test fold is looked at once, by the finished model. Killed at any moment and
    started again with `resume=True`, finished runs are not computed again,
    half-finished ones go on from their checkpoints, and the table is the same.
    A run whose weights diverge is counted and left out of the means.

    Args:
        store_path: Embedding store, or several, which are joined.
        plan: Target, recipe, seeds, folds.
        run_dir: Folder to write, a run folder with one more per run in it.
        workers: Processes, one core each; None takes as many as there are
            cores. The result does not depend on it, but for a store past memory: whether
            each can hold the rows decides how all runs shuffle them (`in_memory` in
            `config.json`), however it is resumed.
        engine: `"local"`, or `"ray"`: workers of a Ray cluster, the one of `RAY_ADDRESS` or
            one started here.
        side_by_side: Runs that a worker trains in one program, at most; None takes what
            `runs_abreast` says. Each learns what it would alone, but for rounding.
        pool: Instead of `workers`: processes that several cross-validations share.
        keep_diverged: Whether it is a result too that every run diverged: then the
            summary is empty.
        save_predictions: Also write what each run answers for its test fold, the mean of 64
            passes, a Parquet file per head: `predictions.parquet`. With `resume` a finished
            cross-validation has them computed by its models. Needs pyarrow.
        resume: Go on with a killed cross-validation.
        force: Replace what is in the folder.
        progress: Show a bar over runs.

    Returns:
        The report, as in `report.json`: `summary` holds mean and standard
        deviation of `<part>_<measure>` over runs, `runs` their rows.

    Raises:
        InputError: if the data cannot be trained on or the folder not used, if
            `plan.init` has learned from the store, or if every run diverged.
        RuntimeError: if a run ended three workers; `resume=True` goes on.
    """
    if save_predictions:
        require_pyarrow("save_predictions")
    started, (trainers, processes) = time.time(), trainers_of(engine, workers)
    store = open_stores(store_path, group=plan.group)
    runs = plan_runs(store, plan)
    abreast = runs_abreast(plan, store, side_by_side)
    processes = min(pool.number if pool else processes, len(runs))
    config = _config_of(store, plan, runs) | in_memory_in_config(store, processes)
    grid = Grid(run_dir, [run.name for run in runs])
    with grid.folder.working(config, resume=resume, force=force, files=[*grid.files, *FILES]):
        before = open_finished(run_dir)[1] if grid.folder.done else None
        if before and not (save_predictions and not has_predictions(grid.folder, plan.target)):
            return before
        pending = grid.pending(lambda n: settings_of(store, plan, runs[n], config["init"]))
        settings = {"store": absolute(store_path), "plan": plan.to_config()}
        settings |= {"run_dir": str(grid.folder.path.resolve()), "precision": _precision_of(grid)}
        settings["in_memory"] = grid.folder.config().get("in_memory")
        require_room(store, settings["in_memory"], processes)
        steps = [run.steps_per_epoch for run in runs]
        with nullcontext(pool) if pool else trainers() as pool:
            if pending:
                together = {"side_by_side": abreast, "on_gpu_alone": side_by_side is None}
                done = pool.train(settings, pending, steps, **together)
                _wait_for(done, len(pending), len(runs), "runs", progress=progress)
            if save_predictions:
                left = without_part(grid.runs, plan.target)
                done = pool.train(settings | {"predict": True}, left, steps)
                _wait_for(done, len(left), len(runs), "answers", progress=progress)
                written = grid.folder.report() if before else None
                join_parts(runs, plan.target, grid.folder)
        if before:
            grid.folder.finish(written)
            return open_finished(run_dir)[1]
        return _finish(grid, store, plan, runs, started, keep_diverged)


def _wait_for(done: Iterator[int], left: int, total: int, what: str, *, progress: bool) -> None:
    bar = {"total": total, "initial": total - left, "desc": what, "unit": "run"}
    collections.deque(tqdm(done, **bar, disable=not progress), maxlen=0)


def _config_of(store: EmbeddingStore, plan: CrossValidationPlan, runs: list[PlannedRun]) -> dict:
    config = {
        "kind": KIND,
        **plan.to_config(),
        "num_folds": len(runs) // len(plan.seeds),
        "folds_from": "column" if has_folds(store) else "seed",
        "init": None,
        "data_digest": store.digest(),
        "folds_digest": folds_digest(runs),
        "width": store.width,
        "standardized": plan.recipe.standardizes(store.info.normalized) or None,
        **store.info.of_embedder(),
        **of_backend(),
    }
    if plan.init is not None:
        check_init(RunFolder(plan.init), config)
        check_untested(RunFolder(plan.init), store.embeddings)
        config["init"] = sha256_file(Path(plan.init) / "model.keras")
    return config


def _finish(
    grid: Grid,
    store: EmbeddingStore,
    plan: CrossValidationPlan,
    runs: list[PlannedRun],
    started: float,
    keep_diverged: bool,
) -> dict:
    reports = [read_report(run) for run in grid.runs]
    rows = [row_of(run.seed, run.fold, r) for run, r in zip(runs, reports, strict=True)]
    rows = [with_exact_years(row, plan.target.classes) for row in rows]
    sound = [n for n, r in enumerate(reports) if "diverged" not in r]
    if not sound and not keep_diverged:
        raise DivergedError(plan.recipe.learning_rate)
    summary = summarize([rows[n] for n in sound])
    first = reports[sound[0]] if sound else {}
    report = {
        "summary": summary,
        "runs": rows,
        "test_share": _test_share(runs),
        "rows": {"used": len(runs[0].training) + len(runs[0].test), "store": len(store)},
        "near_copies": fold_copies(store, runs),
        "different_steps": sorted({run.steps_per_epoch for run in runs}),
        "diverged": len(runs) - len(sound),
        "trainable_parameters": first.get("trainable_parameters"),
        "weights_from_init": first.get("weights_from_init"),
        "precision": _precision_of(grid),
        "seconds": {
            "total": time.time() - started,
            "runs": sum(reports[n]["seconds"]["total"] for n in sound),
        },
    }

    def draw(path: Path) -> None:
        from kerasmlp.training.figures import curves_with_bands

        curves_with_bands([read_csv(grid.runs[n] / "history.csv") for n in sound], path)

    return grid.finish(
        rows, markdown_of(rows, summary, plan.target), report, draw if sound else None
    )


def _precision_of(grid: Grid) -> str | None:
    """Of the runs that have begun: those of a GPU and those of a CPU make no mean."""
    begun = [run for run in grid.runs if (run / "config.json").is_file()]
    found = sorted({run.config().get("precision", "unknown") for run in begun})
    if len(found) > 1:
        requirement = "must hold runs of one precision"
        reject_file(grid.folder.path, requirement, " and ".join(found))
    return found[0] if found else None


def open_finished(path: str | os.PathLike) -> tuple[dict, dict]:
    """Returns config and report of a finished cross-validation.

    Raises:
        InputError: if there is none, or a damaged one.
    """
    folder = RunFolder(path)
    folder.require_kind(KIND, "the folder of a cross-validation")
    config, report = folder.config(), folder.report()
    check_object(folder / "config.json", config, _CONFIG, "that of a cross-validation")
    target = target_of(folder / "config.json", config, "that of a cross-validation")
    report.setdefault("precision", report.get("dtype", "unknown"))  # as older versions say it
    check_object(folder / "report.json", report, _REPORT, "that of a cross-validation")
    losses = [f"test_{name}" for name, _ in of_heads(["nll"], target)]
    count = len(config["seeds"]) * config["num_folds"]
    sound = [_is_run(row, losses) for row in report["runs"]]
    if len(sound) != count or not all(sound):
        reject_file(folder / "report.json", f"must hold {count} runs", f"{sum(sound)}")
    if report["diverged"] != sum("diverged" in run for run in report["runs"]):
        requirement = "must count the runs that diverged"
        reject_file(folder / "report.json", requirement, f"{report['diverged']}")
    pairs = {(run["seed"], run["fold"]) for run in report["runs"]}
    if len(pairs) != count or {seed for seed, _ in pairs} != set(config["seeds"]):
        requirement = f"must hold each of {count} pairs of seed and fold once"
        reject_file(folder / "report.json", requirement, f"{sorted(pairs)}")
    classes = config["target"].get("classes")
    report["runs"] = [with_exact_years(row, classes) for row in report["runs"]]
    report["summary"] = with_exact_years(report["summary"], classes)
    return config, report


def _is_run(row, losses: list[str]) -> bool:
    """Whether a row of a report is one of `row_of`."""
    if not (isinstance(row, dict) and is_number(row.get("seed")) and is_number(row.get("fold"))):
        return False
    return "diverged" in row or all(
        is_number(row.get(name)) and math.isfinite(row[name]) for name in losses
    )


def _test_share(runs) -> float:
    """Rows tested on per row that the procedure saw, the mean over runs."""
    return sum(len(run.test) / len(run.training) for run in runs) / len(runs)
