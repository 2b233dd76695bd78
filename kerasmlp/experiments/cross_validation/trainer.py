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
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, PlannedRun, plan_runs
from kerasmlp.training.precision import default_policy
from kerasmlp.utils.checks import check_int, reject_file
from kerasmlp.utils.tensorflow_import import import_tensorflow
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
) -> dict:
    """Trains one run of a plan into its folder in that of all, or goes on; returns its report."""
    from kerasmlp.training.embeddings import train

    return train(
        store.subset(run.training),
        plan.target,
        plan.recipe,
        Path(run_dir) / run.name,
        seed=run.seed,
        validation_share=plan.validation_share,
        group=plan.group,
        init=plan.init,
        test=store.subset(run.test),
        steps_per_epoch=run.steps_per_epoch,
        workbench=workbench,
        pictures=False,  # 25 pairs of them would cost as much as two runs
        keep_diverged=True,  # tried again it would be the same
        resume=True,
    )


class TrainingPool(Pool):
    """Processes that train the runs of cross-validations, each on one core.

    Two processes of one thread finish more small trainings than one process of
    two threads. A worker that dies is replaced, and its run goes on from its
    checkpoint, unless it has ended three of them; see `Pool`. Workers keep what they have
    compiled from one cross-validation to the next.
    """

    def __init__(self, workers: int):
        workers = check_int("workers", workers, minimum=1)
        super().__init__(_MODULE, workers, costly=MAX_DEATHS, name_of=lambda run: f"run {run}")

    def train(self, settings: dict, pending: Sequence[int], steps: Sequence[int]) -> Iterator[int]:
        """Yields the number of each run as it is done.

        Args:
            settings: The cross-validation, as a worker is told.
            pending: Numbers of the runs to train.
            steps: Per epoch, of every run: those of equal steps share a compiled step.

        Raises:
            InputError: if a run cannot be trained, or workers die again and again.
            RuntimeError: if a run ended three workers.
        """
        left = list(pending)

        def next_task(worker: Worker) -> Task | None:
            alike = [n for n in left if worker.last is not None and steps[n] == steps[worker.last]]
            for number in (alike or left)[:1]:
                left.remove(number)
                return number, number
            return None

        if left:
            self.start(dict(settings), len(left))
        with closing(self.run(next_task, len(left))) as answers:
            for number, answer in answers:
                if isinstance(answer, Lost):
                    ended = f"run {number} ended {MAX_DEATHS} workers"
                    raise RuntimeError(f"{ended}, the last one {answer.words}")
                yield number


@functools.cache
def _workbench() -> Workbench:
    """What this worker has compiled, for one cross-validation after the other."""
    from kerasmlp.training.compiled_models import Workbench

    return Workbench(max_models=MAX_MODELS)


@functools.lru_cache(maxsize=1)
def _store_at(paths: str | tuple[str, ...], group: str | None) -> EmbeddingStore:
    return open_stores(paths, group=group)


def _prepare(settings: dict) -> tuple[bool, Callable[[int], None]]:
    import_tensorflow()
    plan, paths = CrossValidationPlan.from_config(settings["plan"]), settings["store"]
    store = _store_at(paths if isinstance(paths, str) else tuple(paths), plan.group)
    before, here = settings.get("precision"), default_policy()
    if before not in (None, here):  # two precisions are no comparison
        requirement = f"must be resumed where runs are trained in {before}"
        reject_file(settings["run_dir"], requirement, here)
    _workbench().xla = settings.get("xla")
    runs = plan_runs(store, plan)

    def train(number: int) -> None:
        train_planned(store, plan, runs[number], settings["run_dir"], _workbench())

    return True, train


if __name__ == "__main__":
    serve(_prepare)
