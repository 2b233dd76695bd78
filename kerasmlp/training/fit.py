"""One `model.fit` by a recipe: optimiser, checkpoints, precision, weights of another run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from kerasmlp.callbacks.checkpoint import Checkpoint
from kerasmlp.callbacks.validation import Validation
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.model import load_model
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.batches import chunks_of, training_chunks
from kerasmlp.training.initial_weights import check_init
from kerasmlp.training.losses import RankedCrossentropy
from kerasmlp.training.optimizers import RecipeAdamW, recipe_optimizer
from kerasmlp.utils.checks import check_int, reject


def fit(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    recipe: Recipe,
    *,
    seed: int,
    validation: Validation,
    checkpoint_path: Path,
    history_path: Path | None = None,
    progress: bool = False,
    stop_after: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> tuple[keras.Model, list[dict], bool]:
    """Runs `model.fit` from the last checkpoint on; returns model, history, stopped.

    The model is one of `compile_model`, whose steps make an epoch. `stop_after`
    epochs it ends, where its checkpoint lets it go on: the schedule is laid out
    for all of the recipe's. `callbacks` see an epoch after its checkpoint is written,
    and its line in `history_path`.
    """
    epochs = stop_after or recipe.epochs
    batch_size, steps = min(recipe.batch_size, len(x)), recipe_optimizer(model).steps_per_epoch
    stopper = None
    if recipe.patience:
        stopper = keras.callbacks.EarlyStopping(
            "val_loss", patience=recipe.patience, mode="min", restore_best_weights=True
        )
    checkpoint = Checkpoint(checkpoint_path, stopper, history_path=history_path)
    first_epoch = checkpoint.restore(model)
    if first_epoch < epochs and not checkpoint.stopped:
        chunks = training_chunks(
            x,
            y,
            batch_size=batch_size,
            num_epochs=epochs,
            seed=seed,
            first_epoch=first_epoch,
            steps_per_epoch=steps,
            mixup_alpha=recipe.mixup_alpha,
            noise_std=recipe.noise_std,
        )
        bar = []
        if progress:
            from tqdm.keras import TqdmCallback

            bar = [TqdmCallback(verbose=0, initial=first_epoch, epochs=epochs)]
        model.fit(
            chunks,
            epochs=epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=model.steps_per_execution,
            shuffle=False,
            verbose=0,
            callbacks=[validation, *([stopper] if stopper else []), checkpoint, *bar, *callbacks],
        )
    if stopper and stopper.best_weights is not None:
        model.set_weights(stopper.best_weights)
    return model, checkpoint.history, checkpoint.stopped


def steps_of(rows: int, batch_size: int, steps_per_epoch: int | None = None) -> int:
    """Steps of an epoch: as many as the rows fill with batches, or fewer where asked."""
    steps = rows // min(batch_size, rows)
    if steps_per_epoch is None:
        return steps
    if check_int("steps_per_epoch", steps_per_epoch, minimum=1) > steps:
        reject("steps_per_epoch", f"must be at most {steps} for {rows} rows", steps_per_epoch)
    return steps_per_epoch


def compile_model(
    model: keras.Model, recipe: Recipe, *, steps: int, rps_weight: float, xla: bool = True
) -> None:
    """Compiles a model for epochs of `steps` steps, which come in `training_chunks`.

    A step of Keras takes a batch. Here it takes a chunk and runs Keras' own step on
    each of its batches, in a loop inside of the compiled code: to come back to
    TensorFlow between batches costs a small network a tenth of its time. An epoch is
    one call.

    XLA makes a step of a small network faster and takes seconds per network, the
    more the deeper it is: what is trained for a few epochs alone does without
    (see `xla_pays`).
    """
    optimizer = RecipeAdamW(recipe, steps_per_epoch=steps)
    if any(layer.compute_dtype == "float16" for layer in model.layers):
        # Keras adds loss scaling by itself only where the whole model has the policy.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer,
        RankedCrossentropy(rps_weight=rps_weight),
        jit_compile=xla,
        steps_per_execution=chunks_of(steps, recipe.batch_size)[0],
    )
    _take_chunks(model)
    # Variables that are made while a step is traced have it traced twice.
    model.optimizer.build(model.trainable_variables)


def _take_chunks(model: keras.Model) -> None:
    import tensorflow as tf

    def train_step(chunk):
        x, y, count = chunk

        def run(i):
            type(model).train_step(model, (x[i], y[i]))
            return i + 1

        tf.while_loop(lambda i: i < count, run, [0])
        return model.get_metrics_result()

    model.train_step = train_step


def copy_weights(init: RunFolder, model: keras.Model, config: dict) -> dict:
    """Copies the weights of another run, layer by layer, where all shapes agree.

    Args:
        init: The other run, on embeddings of the same kind.
        model: To receive the weights.
        config: Of the run that the model belongs to.

    Raises:
        InputError: as of `check_init`, or if no layer fits.
    """
    check_init(init, config)
    source = {layer.name: layer for layer in load_model(init.path).layers if layer.weights}
    copied, left = [], []
    for layer in model.layers:
        if not layer.weights:
            continue
        other = source.get(layer.name)
        shapes = [w.shape for w in layer.weights]
        if other is not None and [w.shape for w in other.weights] == shapes:
            layer.set_weights(other.get_weights())
            copied.append(layer.name)
        else:
            left.append(layer.name)
    if not copied:
        reject("init", "must be a run of the same network", str(init.path))
    return {"copied": copied, "new": left}
