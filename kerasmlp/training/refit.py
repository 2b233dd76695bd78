"""The second training of a run: on all rows, once those kept back have done what they are for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import keras
import numpy as np

from kerasmlp.callbacks.validation import forward
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.fit import answering, fit
from kerasmlp.training.heads import Heads
from kerasmlp.utils.checks import DivergedError

if TYPE_CHECKING:
    from kerasmlp.training.embeddings import EmbeddingTraining


def refit(
    training: EmbeddingTraining, history: list[dict], run: RunFolder, *, progress: bool
) -> tuple[keras.Model, Heads, dict[str, int]]:
    """Trains from the same beginning on all rows, as many epochs as gave the first its weights.

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
    model, steps = training.new_model(rows)
    if training.beginning is not None:
        model.set_weights(training.beginning)
    epochs = len(history)
    if recipe.patience:
        epochs = 1 + int(np.argmin([row["val_loss"] for row in history]))
    course = training.course_of_all(model, rows, heads, steps)
    course = replace(course, epochs=epochs, patience=None)
    fit(model, course, checkpoint_path=run / "refit.npz", progress=progress)
    if not np.isfinite(
        forward(answering(model), training.rows.part_inputs, xla=training.xla)
    ).all():
        raise DivergedError(recipe.learning_rate)
    return model, heads, {"rows": rows.size, "epochs": epochs}
