"""One worker process of a cross-validation: trains the runs it is given, one JSON line each."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path

from kerasmlp.checks import InputError
from kerasmlp.cross_validation_plan import Plan, plan_runs
from kerasmlp.quiet import import_tensorflow
from kerasmlp.stores.embedding_store import EmbeddingStore


class Trainer:
    """Trains runs of a plan; those of one shape share a compiled step.

    Args:
        store: The data.
        plan: What to compute.
        run_dir: Of the cross-validation; every run gets a folder in it.
    """

    def __init__(self, store: EmbeddingStore, plan: Plan, run_dir: str | os.PathLike):
        from kerasmlp.workbench import Workbench

        self._store, self._plan, self._run_dir = store, plan, Path(run_dir)
        self._runs = plan_runs(store, plan)
        self._workbench = Workbench()

    def train(self, number: int) -> dict:
        """Trains one run, or goes on with it; returns its report."""
        from kerasmlp.training import train

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
            resume=True,
        )


def main() -> None:
    """Serves numbers of runs from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with answers

    def answer(message: dict) -> None:
        print(json.dumps(message), file=answers, flush=True)

    settings = json.loads(sys.stdin.readline())
    given: queue.Queue = queue.Queue()
    threading.Thread(target=_listen, args=(given,), daemon=True).start()
    try:
        store = EmbeddingStore.open(settings["store"])
        import_tensorflow()
        import tensorflow as tf

        # One core each: a second one makes a small step hardly faster.
        tf.config.threading.set_intra_op_parallelism_threads(1)
        trainer = Trainer(store, Plan.from_config(settings["plan"]), settings["run_dir"])
        while True:
            number = given.get()
            trainer.train(number)
            answer({"done": number})
    except InputError as error:
        answer({"error": str(error)})


def _listen(given: queue.Queue) -> None:
    for line in sys.stdin:
        given.put(json.loads(line))
    # The parent is gone or done: a run in work has its checkpoint.
    os._exit(0)


if __name__ == "__main__":
    main()
