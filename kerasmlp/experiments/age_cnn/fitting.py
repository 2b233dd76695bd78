"""One `model.fit` of an age CNN: MAE, Adam, the best weights by the validation MAE."""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kerasmlp.callbacks.checkpoint import Checkpoint
from kerasmlp.experiments.age_cnn.data import Faces, shuffled_batches
from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe
from kerasmlp.models.age_cnn import AgeCNN
from kerasmlp.training.precision import PRECISIONS
from kerasmlp.utils.checks import check_choice, reject

PREDICT_ROWS = 256
MEASURE = "val_mae_years"


class _Diverging(keras.callbacks.Callback):
    """Stops weights that diverge, before a checkpoint keeps them."""

    def __init__(self, learning_rate: float):
        super().__init__()
        self.learning_rate = learning_rate

    def on_epoch_end(self, epoch, logs=None):
        if not all(math.isfinite(value) for value in logs.values()):
            reject("learning_rate", "must be lower: the weights diverged", self.learning_rate)


def new_model(
    recipe: AgeCNNRecipe, input_shape: tuple[int, ...], seed: int, precision: str
) -> keras.Model:
    """The network of a recipe; all that is random in this process follows from the seed."""
    check_choice("precision", precision, PRECISIONS)
    keras.utils.set_random_seed(seed)
    return AgeCNN(
        recipe.specification,
        input_shape=tuple(input_shape),
        regularization=recipe.regularization,
        seed=seed,
        dtype=precision,
    )


def compile_model(
    model: keras.Model, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
) -> None:
    """Compiles a model for MAE and Adam."""
    optimizer = keras.optimizers.Adam(learning_rate)
    if any(layer.compute_dtype == "float16" for layer in model.layers):
        # Keras adds loss scaling by itself only where the whole model has the policy.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer,
        "mean_absolute_error",
        metrics=[keras.metrics.MeanAbsoluteError(name="mae_years")],
        # XLA's convolutions are slow on CPUs.
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
    )
    model.optimizer.build(model.trainable_variables)


def fit(
    model: keras.Model,
    training: Faces,
    validation: Faces,
    recipe: AgeCNNRecipe,
    *,
    seed: int,
    checkpoint_path: Path,
    history_path: Path,
    passes: int = 1,
    learning_rate: keras.optimizers.schedules.LearningRateSchedule | None = None,
    progress: bool = False,
) -> list[dict]:
    """Trains from the last checkpoint on, takes the best weights, returns the history.

    Args:
        model: Of `new_model`.
        training: Images that fill a batch or more.
        validation: Measured after every epoch.
        recipe: Hyperparameters.
        seed: Of the orders.
        checkpoint_path: Where every epoch is kept.
        history_path: CSV that grows by a line with every epoch.
        passes: Over the images, in an epoch.
        learning_rate: Instead of the recipe's, which is constant.
        progress: Show a bar.

    Raises:
        InputError: if the weights diverge.
    """
    batch_size = recipe.batch_size
    measured = "MAE" if validation is training else "validation MAE"
    steps = len(training) // batch_size
    compile_model(model, learning_rate or recipe.learning_rate)
    stopper = keras.callbacks.EarlyStopping(
        MEASURE, patience=recipe.patience or recipe.epochs, mode="min", restore_best_weights=True
    )
    checkpoint = Checkpoint(checkpoint_path, stopper, history_path=history_path)
    first_epoch = checkpoint.restore(model)
    if first_epoch < recipe.epochs and not checkpoint.stopped:
        batches = shuffled_batches(
            training,
            batch_size=batch_size,
            steps=steps,
            epochs=range(passes * first_epoch, passes * recipe.epochs),
            seed=seed,
        )
        with tqdm(
            total=recipe.epochs, initial=first_epoch, unit="epoch", disable=not progress
        ) as bar:

            def show(epoch, logs):
                bar.set_postfix_str(f"{measured} {logs[MEASURE]:.2f}", refresh=False)
                bar.update()

            model.fit(
                batches,
                epochs=recipe.epochs,
                initial_epoch=first_epoch,
                steps_per_epoch=passes * steps,
                shuffle=False,
                validation_data=(validation.images, validation.age_years[:, None]),
                validation_batch_size=PREDICT_ROWS,
                verbose=0,
                callbacks=[
                    _Diverging(recipe.learning_rate),
                    stopper,
                    checkpoint,
                    keras.callbacks.LambdaCallback(on_epoch_end=show),
                ],
            )
    if stopper.best_weights is not None:
        model.set_weights(stopper.best_weights)
    return checkpoint.history


def in_float32(
    model: keras.Model, recipe: AgeCNNRecipe, input_shape: tuple[int, ...]
) -> keras.Model:
    """The same weights in a network of float32, which is what a run folder keeps."""
    copy = AgeCNN(
        recipe.specification,
        input_shape=tuple(input_shape),
        regularization=recipe.regularization,
    )
    copy.set_weights(model.get_weights())
    return copy


def predict_years(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Ages `(rows,)` of images."""
    return model.predict(images, batch_size=PREDICT_ROWS, verbose=0)[:, 0]
