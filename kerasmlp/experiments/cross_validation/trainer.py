"""Trains the runs of cross-validations, here or spread over worker processes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmlp.data.joining import open_stores
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.cross_validation.out_of_fold import predict_planned
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, PlannedRun, plan_runs
from kerasmlp.experiments.cross_validation.side_by_side import groups_of
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.precision import default_policy
from kerasmlp.utils.backends import on_gpu
from kerasmlp.utils.checks import check_int, reject_file
from kerasmlp.utils.tensorflow_import import import_keras
from kerasmlp.utils.worker import Task, Worker, serve
from kerasmlp.utils.workers import Lost, Pool

if TYPE_CHECKING:
    from kerasmlp.training.compiled_models import Workbench

_MODULE = "kerasmlp.experiments.cross_validation.trainer"
MAX_DEATHS = 3
"""Of workers at one run."""

MAX_MODELS = 6
"""A traced model holds some 200 MB, and what comes next is most often of the last shapes."""


def train_planned(
    store: EmbeddingStore,
    plan: CrossValidationPlan,
    run: PlannedRun,
    run_dir: str | os.PathLike,
    workbench: Workbench | None = None,
    most_bytes: int | None = None,
) -> dict:
    """Trains one run of a plan into its folder in that of all, or goes on; returns its report."""
    from kerasmlp.training.embeddings import train

    what, how = (store.subset(run.training), plan.target, plan.recipe), _how(store, plan, run)
    how |= {"workbench": workbench, "most_bytes": most_bytes, "resume": True}
    # What diverged would do so again.
    return train(*what, Path(run_dir) / run.name, keep_diverged=True, **how)


def train_together(
    store: EmbeddingStore,
    plan: CrossValidationPlan,
    runs: Sequence[PlannedRun],
    run_dir: str | os.PathLike,
    workbench: Workbench,
    most_bytes: int | None = None,
) -> None:
    """Trains runs of a plan, of as many steps, side by side; each ends as by `train_planned`."""
    from kerasmlp.training.abreast import train_abreast
    from kerasmlp.training.blocks import bytes_as_begun
    from kerasmlp.training.embeddings import prepared

    def folder(run: PlannedRun) -> Path:
        return Path(run_dir) / run.name

    def maker(run: PlannedRun):
        what = store.subset(run.training), plan.target, plan.recipe
        begun = bytes_as_begun(folder(run), resume=True)
        how = {"workbench": workbench, "most_bytes": most_bytes if begun is None else begun}
        return lambda: prepared(*what, **how, **_how(store, plan, run))

    if len(runs) > 1:
        train_abreast((maker(run), RunFolder(folder(run))) for run in runs)
    for run in runs:
        train_planned(store, plan, run, run_dir, workbench, most_bytes)


def _how(store: EmbeddingStore, plan: CrossValidationPlan, run: PlannedRun) -> dict:
    return {
        "seed": run.seed,
        "validation_share": plan.validation_share,
        "group": plan.group,
        "init": plan.init,
        "test": store.subset(run.test),
        "steps_per_epoch": run.steps_per_epoch,
        "pictures": False,  # 25 pairs of them would cost as much as two runs
        "near_copies": False,  # looked for once, in all folds
    }


class TrainingPool(Pool):
    """Processes that train the runs of cross-validations, each on one core.

    Two processes of one thread finish more small trainings than one process of
    two threads. A worker that dies is replaced, and its run goes on from its
    checkpoint, unless it has ended three of them; see `Pool`. Workers keep what they have
    compiled from one cross-validation to the next.
    """

    def __init__(self, workers: int):
        workers = check_int("workers", workers, minimum=1)
        super().__init__(_MODULE, workers, costly=MAX_DEATHS, name_of=_name_of)

    def train(
        self,
        settings: dict,
        pending: Sequence[int],
        steps: Sequence[int],
        *,
        side_by_side: int = 1,
        on_gpu_alone: bool = False,
    ) -> Iterator[int]:
        """Yields the number of each run as it is done.

        Args:
            settings: The cross-validation, as a worker is told; with `predict` the answers of
                finished runs are kept, and nothing is trained.
            pending: Numbers of the runs to train.
            steps: Per epoch, of every run: those of equal steps share a compiled step.
            side_by_side: Runs that a worker trains in one program, at most.
            on_gpu_alone: Whether it is one each where workers see no GPU.

        Raises:
            InputError: if a run cannot be trained, or workers die again and again.
            RuntimeError: if a run ended three workers.
        """
        if side_by_side > 1 and on_gpu_alone and pending:
            self.start(dict(settings), 1)
            side_by_side = side_by_side if self.first_ready() else 1
        left = groups_of(pending, steps, side_by_side)

        def next_task(worker: Worker) -> Task | None:
            last = None if worker.last is None else steps[worker.last]
            alike = [group for group in left if steps[group[0]] == last]
            for group in (alike or left)[:1]:
                left.remove(group)
                return group[0], group
            return None

        groups = {group[0]: group for group in left}

        if left:
            self.start(dict(settings), len(left))
        with closing(self.run(next_task, len(left))) as answers:
            for number, answer in answers:
                if isinstance(answer, Lost):
                    ended = f"{_name_of(groups[number])} ended {MAX_DEATHS} workers"
                    raise RuntimeError(f"{ended}, the last one {answer.words}")
                yield from groups[number]


def _name_of(group: Sequence[int]) -> str:
    return f"run {group[0]}" if len(group) == 1 else f"runs {', '.join(map(str, group))}"


@functools.cache
def _workbench() -> Workbench:
    """What this worker has compiled, for one cross-validation after the other."""
    from kerasmlp.training.compiled_models import Workbench

    return Workbench(max_models=MAX_MODELS)


@functools.lru_cache(maxsize=1)
def _store_at(
    paths: str | tuple[str, ...], group: str | None, most_bytes: int | None
) -> EmbeddingStore:
    from kerasmlp.training.blocks import at_hand

    return at_hand(open_stores(paths, group=group), most_bytes)


def _prepare(settings: dict) -> tuple[bool, Callable[[Sequence[int]], None]]:
    import_keras()
    from kerasmlp.training.blocks import bytes_as_told

    plan, paths = CrossValidationPlan.from_config(settings["plan"]), settings["store"]
    most_bytes = bytes_as_told(settings.get("in_memory"))
    store = _store_at(paths if isinstance(paths, str) else tuple(paths), plan.group, most_bytes)
    before, here = settings.get("precision"), default_policy()
    # Two precisions are no comparison; saved models are in one.
    if before not in (None, here) and not settings.get("predict"):
        requirement = f"must be resumed where runs are trained in {before}"
        reject_file(settings["run_dir"], requirement, here)
    _workbench().xla = settings.get("xla")
    runs = plan_runs(store, plan)

    def train(numbers: Sequence[int]) -> None:
        group = [runs[number] for number in numbers]
        train_together(store, plan, group, settings["run_dir"], _workbench(), most_bytes)

    def predict(numbers: Sequence[int]) -> None:
        for number in numbers:
            predict_planned(store, plan, runs[number], settings["run_dir"])

    return on_gpu(), predict if settings.get("predict") else train


if __name__ == "__main__":
    serve(_prepare)
