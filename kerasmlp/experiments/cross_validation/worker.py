"""One worker process of cross-validations: trains the runs it is given, one JSON line each."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.cross_validation.plan import Plan, plan_runs
from kerasmlp.training.precision import default_policy
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.processes import describe_os_error
from kerasmlp.utils.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from kerasmlp.training.compiled_models import Workbench

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
        plan: Plan,
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


def main() -> None:
    """Serves settings of a cross-validation and numbers of its runs, until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with answers

    def answer(message: dict) -> None:
        print(json.dumps(message), file=answers, flush=True)

    given: queue.Queue = queue.Queue()
    threading.Thread(target=_listen, args=(given,), daemon=True).start()
    try:
        import_tensorflow()
        from kerasmlp.training.compiled_models import Workbench

        workbench, stores = Workbench(max_models=MAX_MODELS), {}
        while True:
            message = given.get()
            if isinstance(message, dict):
                path, plan = message["store"], Plan.from_config(message["plan"])
                stores = {path: stores.get(path) or EmbeddingStore.open(path, verify=True)}
                workbench.xla = message.get("xla")
                _check_precision(message)
                trainer = Trainer(stores[path], plan, message["run_dir"], workbench)
            else:
                trainer.train(message)
                answer({"done": message})
    except InputError as error:
        answer({"error": str(error)})
    except OSError as error:  # a full disk, above all: no other worker can help
        answer(describe_os_error(error))


def _check_precision(settings: dict) -> None:
    """Rejects runs that were begun on another kind of machine: two precisions are no comparison."""
    before, here = settings.get("precision"), default_policy()
    if before not in (None, here):
        path = settings["run_dir"]
        reject_file(path, f"must be resumed where runs are trained in {before}", here)


def _listen(given: queue.Queue) -> None:
    for line in sys.stdin:
        given.put(json.loads(line))
    # The parent is gone or done: a run in work has its checkpoint.
    os._exit(0)


if __name__ == "__main__":
    main()
