"""AdamW that follows a recipe by variables, so that a compiled step serves recipes of one shape."""

from __future__ import annotations

import keras
import numpy as np

from kerasmlp.models.presets import Recipe


@keras.saving.register_keras_serializable("kerasmlp")
class RecipeAdamW(keras.optimizers.AdamW):
    """AdamW whose learning rates and weight decay are variables, and the original's epsilon.

    A rate or a decay that is a constant of the traced step has every recipe
    trace and compile anew. Here they are a table with one rate per step of the
    whole run, and a scalar. They follow from the recipe, not from the training so far: under
    TensorFlow neither is in `variables`, nor in a checkpoint.

    Args:
        recipe: Schedule, weight decay and what it falls on.
        steps_per_epoch: Optimiser steps.

    Example:

    >>> optimizer = RecipeAdamW(Recipe(learning_rate=0.5, epochs=4), steps_per_epoch=5)
    >>> optimizer.follow(Recipe(learning_rate=0.25, epochs=4))
    >>> float(np.max(optimizer.schedule.table))
    0.25
    """

    schedule: TableSchedule | None = None

    def __init__(self, recipe: Recipe, *, steps_per_epoch: int):
        schedule = TableSchedule(learning_rates(recipe, steps_per_epoch), recipe.weight_decay)
        super().__init__(schedule, recipe.weight_decay, epsilon=1e-8)
        self.recipe, self.steps_per_epoch, self.schedule = recipe, steps_per_epoch, schedule
        if not recipe.decay_all:
            self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])

    @property
    def variables(self):
        """Under JAX with the table and the decay: a compiled step knows only what it is given."""
        given = [self.schedule.table, self.schedule.weight_decay] if self.schedule else []
        return super().variables + given * (keras.backend.backend() == "jax")

    @property
    def weight_decay(self):
        """A variable of the schedule's: the optimiser would save one of its own."""
        return self.schedule.weight_decay if self.schedule else 0.0

    @weight_decay.setter
    def weight_decay(self, value: float):
        if self.schedule:  # Keras sets it before there is one
            self.schedule.weight_decay.assign(value)

    def follow(self, recipe: Recipe) -> None:
        """Takes the rates and the weight decay of another recipe with as many steps."""
        self.recipe = recipe
        self.schedule.table.assign(learning_rates(recipe, self.steps_per_epoch))
        self.weight_decay = recipe.weight_decay

    def get_config(self):
        return {"recipe": self.recipe.to_config(), "steps_per_epoch": self.steps_per_epoch}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(Recipe(**config["recipe"]), steps_per_epoch=config["steps_per_epoch"])


def recipe_optimizer(model: keras.Model) -> RecipeAdamW:
    """The one that a model was compiled with, out of its loss scaling where it has that."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


class TableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Looks the learning rate of a step up; past the end it is the last one.

    Keras tracks no variables of schedules, so both stay out of the optimiser's.

    Args:
        rates: One per step, float32.
        weight_decay: Of the optimiser.
    """

    def __init__(self, rates: np.ndarray, weight_decay: float):
        self.table = keras.Variable(rates, trainable=False, dtype="float32")
        self.weight_decay = keras.Variable(weight_decay, trainable=False, dtype="float32")

    def __call__(self, step):
        last = self.table.shape[0] - 1
        step = keras.ops.minimum(keras.ops.cast(step, "int32"), last)
        return keras.ops.take(self.table, step)


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> np.ndarray:
    """Returns the learning rate of each step of a run, shape `(epochs * steps_per_epoch,)`.

    Example:

    >>> learning_rates(Recipe(schedule="exponential", gamma=0.5, epochs=2), 2).tolist()
    [0.001..., 0.001..., 0.0005..., 0.0005...]
    """
    steps = np.arange(recipe.epochs * steps_per_epoch)
    if recipe.schedule == "exponential":
        rates = recipe.learning_rate * recipe.gamma ** (steps // steps_per_epoch).astype(float)
    else:
        warmup = min(round(recipe.warmup_share * len(steps)), len(steps) - 1)
        falling = np.maximum(steps - warmup, 0) / (len(steps) - warmup)
        rates = recipe.learning_rate * 0.5 * (1 + np.cos(np.pi * falling))
        rates[:warmup] = recipe.learning_rate * steps[:warmup] / max(warmup, 1)
    return rates.astype(np.float32)
