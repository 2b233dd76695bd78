"""Trains the trials of a search; those of one network share a compiled step."""

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from kerasmlp.callbacks.validation import Validation
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.tuning.plan import Cost, TuningPlan
from kerasmlp.experiments.tuning.space import middle_of
from kerasmlp.models.presets import Recipe
from kerasmlp.training.blocks import at_hand
from kerasmlp.training.columns import adapt_columns, noise_units
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.fit import answering, course_by_recipe, fit
from kerasmlp.training.heads import Heads
from kerasmlp.training.precision import default_policy
from kerasmlp.training.rows import Rows
from kerasmlp.utils.checks import DivergedError, reject

MAX_MODELS = 12
"""Traced models that are kept, some 200 MB each, the deepest more."""


def trace_faster() -> None:
    """Turns TensorFlow's graph optimiser off in this process.

    It takes a quarter of the time to trace a network and makes its steps no faster.
    Under another backend there is none.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def rows_of(store: EmbeddingStore, plan: TuningPlan) -> Rows:
    """The rows that a search learns from and measures on.

    Raises:
        InputError: if the store cannot be trained on.
    """
    how = {name: getattr(plan, name) for name in ("validation_share", "seed", "group")}
    return Rows.of(_without_fold(store, plan.leave_out_fold), plan.target, None, how)


class TrialRunner:
    """Trains recipes on the same rows from the same seed, from epoch to epoch.

    Args:
        store: To train on.
        plan: Of the search.
        most_bytes: As of `train`.

    Raises:
        InputError: if the store cannot be trained on.
    """

    def __init__(self, store: EmbeddingStore, plan: TuningPlan, most_bytes: int | None = None):
        self._plan, self._normalized = plan, store.info.normalized
        self.rows = rows_of(at_hand(store, most_bytes), plan)
        # A search traces many networks, which TensorFlow takes for one that is traced too often.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        self.use_compiler(xla=plan.uses_xla(self.rows.size))

    def use_compiler(self, *, xla: bool) -> None:
        self.workbench = Workbench(max_models=MAX_MODELS, xla=xla)

    def run(
        self,
        recipe: Recipe,
        checkpoint_path: Path,
        *,
        stop_after: int,
        on_epoch: Callable[[int], None] = lambda done: None,
    ) -> dict[str, float]:
        """Trains up to an epoch, from the checkpoint on where there is one.

        Args:
            recipe: Its epochs are those that the schedule is laid out for.
            checkpoint_path: Of optimiser, generators, weights and history.
            stop_after: Epochs in all.
            on_epoch: Called after each epoch, its checkpoint written, with the number of
                epochs done; what it raises ends the training.

        Returns:
            `val_loss` of the deterministic model and `seconds` of this call.
            A recipe with patience takes its best weights, so its loss is the
            smallest so far; others have that of the last epoch. Diverged
            weights have an infinite loss.
        """
        started, plan = time.perf_counter(), self._plan
        inputs, heads = self.rows.inputs, Heads(self.rows, recipe)
        steps = recipe.steps(self.rows.size)
        model = self.workbench.model(
            recipe,
            heads=plan.target.network_head,
            width=inputs.shape[1],
            batch_size=min(recipe.batch_size, self.rows.size),
            steps=steps,
            loss=heads.loss,
            precision=default_policy(),
            seed=plan.seed,
            normalized=self._normalized,
        )
        adapt_columns(model, inputs)
        course = course_by_recipe(
            inputs,
            heads.targets,
            recipe,
            steps=steps,
            seed=plan.seed,
            noise_units=noise_units(model),
            view_starts=self.rows.view_starts,
            callbacks=[
                Validation(self.rows.part_inputs, heads.validation_loss, of=answering(model))
            ],
        )
        # The search stops what does not improve.
        course = replace(course, epochs=stop_after, patience=None)
        try:
            history, _ = fit(model, course, checkpoint_path=checkpoint_path, on_epoch=on_epoch)
            losses = [row["val_loss"] for row in history[:stop_after]]
            loss = min(losses) if recipe.patience else losses[-1]
        except DivergedError:
            loss = float("inf")
        # 32 bits, so that a loss is the same whether or not it went over the wire.
        return {"val_loss": float(np.float32(loss)), "seconds": time.perf_counter() - started}

    def measure_cost(self, *, xla: bool) -> Cost:
        """Trains a network in the middle of the space for three epochs, compiled by XLA or not."""
        self.use_compiler(xla=xla)
        recipe = middle_of(self._plan.recipe.replace(epochs=3), self._plan.dimensions)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.npz"
            seconds = [self.run(recipe, path, stop_after=k)["seconds"] for k in (1, 3)]
        epoch = seconds[1] / 2
        return Cost(max(seconds[0] - epoch, 0.0), epoch)


def _without_fold(store: EmbeddingStore, fold: int | None) -> EmbeddingStore:
    if fold is None:
        return store
    if "fold" not in store.labels:
        reject("leave_out_fold", "must be left out for a store without a column `fold`", fold)
    folds = store.labels["fold"]
    present = sorted({int(k) for k in folds if k >= 0})
    if len(present) < 2:
        reject("leave_out_fold", "must be left out for a store without two folds", fold)
    if fold not in present:
        reject("leave_out_fold", f"must be one of {', '.join(map(str, present))}", fold)
    return store.subset(np.flatnonzero(folds != fold))
