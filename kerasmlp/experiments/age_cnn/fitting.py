"""How an age CNN is made and what it goes through: MAE, Adam, the best weights by validation."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from kerasmlp.data.examples import Examples
from kerasmlp.experiments.age_cnn.data import shuffled_batches
from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe
from kerasmlp.models.age_cnn import AgeCNN
from kerasmlp.training.fit import Course, compile_model
from kerasmlp.training.image_batches import plain_batches
from kerasmlp.training.precision import PRECISIONS
from kerasmlp.utils.checks import check_choice

PREDICT_ROWS = 256
MEASURE = "val_mae_years"


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


def compile_for_years(
    model: keras.Model, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
) -> None:
    """Compiles a model for MAE and Adam."""
    metrics = [keras.metrics.MeanAbsoluteError(name="mae_years")]
    optimizer = keras.optimizers.Adam(learning_rate)
    compile_model(model, optimizer, "mean_absolute_error", metrics=metrics)


def course_of(
    training: Examples, validation: Examples, recipe: AgeCNNRecipe, *, seed: int, passes: int = 1
) -> Course:
    """What a recipe has a model go through; it ends with the best weights.

    Args:
        training: Images that fill a batch or more.
        validation: Measured after every epoch.
        recipe: Hyperparameters.
        seed: Of the orders.
        passes: Over the images, in an epoch.
    """
    steps = len(training) // recipe.batch_size

    def batches(epochs: range) -> tf.data.Dataset:
        numbers = range(passes * epochs.start, passes * epochs.stop)
        how = {"batch_size": recipe.batch_size, "steps": steps, "seed": seed}
        return shuffled_batches(training, epochs=numbers, **how)

    ages = validation.targets[:, None]
    return Course(
        batches=batches,
        epochs=recipe.epochs,
        steps=passes * steps,
        learning_rate=recipe.learning_rate,
        monitor=MEASURE,
        patience=recipe.patience or recipe.epochs,
        validation=plain_batches(
            validation.inputs, ages, batch_size=PREDICT_ROWS, normalized=False
        ),
    )


def predict_years(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Ages `(rows,)` of images."""
    return model.predict(images, batch_size=PREDICT_ROWS, verbose=0)[:, 0]
