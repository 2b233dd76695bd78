"""The second training of a run: on all rows, once those kept back have done what they are for."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import keras
import numpy as np

from kerasmlp.callbacks.validation import forward
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.fit import Course, answering, fit
from kerasmlp.training.heads import Heads
from kerasmlp.training.rows import Rows
from kerasmlp.utils.checks import DivergedError


class Repeatable(Protocol):
    """What a training hands in to be done again.

    Attributes:
        recipe: Hyperparameters.
        rows: Divided.
        heads: Of the first network.
        beginning: Weights to begin with; None takes those of a new model.
        xla: As of `forward`.
    """

    recipe: Recipe
    rows: Rows
    heads: Heads
    beginning: list[np.ndarray] | None
    xla: bool

    def new_model(self, rows: Rows) -> keras.Model:
        """The model as it begins, for such rows."""

    def course_of_all(self, model: keras.Model, rows: Rows, heads: Heads) -> Course:
        """What the model goes through on all rows, none of which are kept back."""


def refit(
    training: Repeatable, history: list[dict], run: RunFolder, *, progress: bool
) -> tuple[keras.Model, Heads, dict[str, int]]:
    """Trains from the same beginning on all rows, as many epochs as gave the first its weights.

    An epoch has as many steps as before, so that the compiled step serves again: the rows that
    are too many for them are others each time.

    Args:
        training: Whose first network is trained, and measured.
        history: Of that.
        run: For a checkpoint of its own.
        progress: Show a bar.

    Returns:
        The model, its heads, and what the report says of it.

    Raises:
        InputError: a `DivergedError` if the weights diverge, which the first did not.
    """
    recipe, rows = training.recipe, training.rows.undivided()
    heads = training.heads.on(rows)
    model = training.new_model(rows)
    if training.beginning is not None:
        model.set_weights(training.beginning)
    epochs = len(history)
    if recipe.patience:
        epochs = 1 + int(np.argmin([row["val_loss"] for row in history]))
    course = training.course_of_all(model, rows, heads)
    course = replace(course, epochs=epochs, patience=None)
    fit(model, course, checkpoint_path=run / "refit.npz", progress=progress)
    if not np.isfinite(
        forward(answering(model), training.rows.part_inputs, xla=training.xla)
    ).all():
        raise DivergedError(recipe.learning_rate)
    return model, heads, {"rows": rows.size, "epochs": epochs}
