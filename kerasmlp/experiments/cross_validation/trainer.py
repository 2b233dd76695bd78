"""Trains the runs of cross-validations, here or spread over worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, plan_runs
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


class Trainer:
    """Trains runs of a plan; those of one shape share a compiled step.

    Args:
        store: The data.
        plan: What to compute.
        run_dir: Of the cross-validation; every run gets a folder in it.
        workbench: Of compiled steps; None takes a new one.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        plan: CrossValidationPlan,
        run_dir: str | os.PathLike,
        workbench: Workbench | None = None,
    ):
        from kerasmlp.training.compiled_models import Workbench

        self._store, self._plan, self._run_dir = store, plan, Path(run_dir)
        self._runs = plan_runs(store, plan)
        self._workbench = workbench or Workbench()

    def train(self, number: int) -> dict:
        """Trains one run, or goes on with it; returns its report."""
        from kerasmlp.training.embeddings import train

        run, plan = self._runs[number], self._plan
        return train(
            self._store.subset(run.training),
            plan.target,
            plan.recipe,
            self._run_dir / run.name,
            seed=run.seed,
            validation_share=plan.validation_share,
            group=plan.group,
            init=plan.init,
            test=self._store.subset(run.test),
            steps_per_epoch=run.steps_per_epoch,
            workbench=self._workbench,
            pictures=False,  # 25 pairs of them would cost as much as two runs
            keep_diverged=True,  # tried again it would be the same
            resume=True,
        )


class TrainingPool:
    """Processes that train the runs of cross-validations, each on one core.

    Two processes of one thread finish more small trainings than one process of
    two threads. A worker that dies is replaced, and its run goes on from its
    checkpoint, unless it has ended three of them; see `Pool`. Workers keep what they have
    compiled from one cross-validation to the next.

    Args:
        workers: Number of processes.

    Raises:
        InputError: if there would be none.
    """

    def __init__(self, workers: int):
        workers = check_int("workers", workers, minimum=1)
        self._pool = Pool(_MODULE, workers, costly=MAX_DEATHS, name_of=lambda run: f"run {run}")

    def __enter__(self) -> TrainingPool:
        return self

    def __exit__(self, *_) -> None:
        self._pool.__exit__()

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
            self._pool.start(dict(settings), len(left))
        for number, answer in self._pool.run(next_task, len(left)):
            if isinstance(answer, Lost):
                ended = f"run {number} ended {MAX_DEATHS} workers"
                raise RuntimeError(f"{ended}, the last one {answer.words}")
            yield number


class _Desk:
    """What a worker keeps from one cross-validation to the next."""

    def __init__(self):
        self._store: tuple[str, EmbeddingStore] | None = None
        self._workbench: Workbench | None = None

    def prepare(self, settings: dict) -> tuple[bool, Callable[[int], None]]:
        import_tensorflow()
        from kerasmlp.training.compiled_models import Workbench

        self._workbench = self._workbench or Workbench(max_models=MAX_MODELS)
        path, plan = settings["store"], CrossValidationPlan.from_config(settings["plan"])
        if self._store is None or self._store[0] != path:
            self._store = path, EmbeddingStore.open(path, verify=True)
        self._workbench.xla = settings.get("xla")
        _check_precision(settings)
        trainer = Trainer(self._store[1], plan, settings["run_dir"], self._workbench)

        def train(number: int) -> None:
            trainer.train(number)

        return True, train


def _check_precision(settings: dict) -> None:
    """Rejects runs that were begun on another kind of machine: two precisions are no comparison."""
    before, here = settings.get("precision"), default_policy()
    if before not in (None, here):
        path = settings["run_dir"]
        reject_file(path, f"must be resumed where runs are trained in {before}", here)


if __name__ == "__main__":
    serve(_Desk().prepare)
