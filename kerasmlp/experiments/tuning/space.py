"""What a search varies: ranges and choices of hyperparameters on top of a recipe."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kerasmlp.models.presets import Recipe

Value = int | float


@dataclass(frozen=True)
class LogRange:
    """A float whose logarithm is uniform between two bounds."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return math.sqrt(self.low * self.high)

    def holds(self, value: Value) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of some values, each as likely."""

    values: tuple[Value, ...]

    @property
    def middle(self) -> Value:
        return self.values[len(self.values) // 2]

    def holds(self, value: Value) -> bool:
        return value in self.values


SPACES: dict[str, dict[str, LogRange | Choice]] = {
    "narrow": {
        "learning_rate": LogRange(3e-4, 1e-2),
        "weight_decay": LogRange(1e-3, 0.5),
        "dropout_rate": Choice((0.2, 0.5)),
        "num_blocks": Choice((0, 1, 2)),
        "residuals_per_block": Choice((0, 1, 2)),
        "mixup_alpha": Choice((0.0, 0.2, 0.4)),
    },
    "paper": {
        "learning_rate": LogRange(1e-6, 1e-1),
        "weight_decay": LogRange(1e-6, 1e-1),
        "gamma": LogRange(1e-6, 1.0),
        "batch_size": Choice((128, 256, 512)),
        "num_blocks": Choice((0, 1, 2, 3, 4, 5)),
        "residuals_per_block": Choice((0, 1, 2, 3, 4, 5)),
    },
}
"""`paper` is what the original searched, dropout rate 0.05 fixed. `narrow` goes around our
defaults: rate and decay a decade to each side, the small networks that fit embeddings, mixup.
Each further network is one more to trace, so dropout has two values only."""


def rounded(value: Value) -> Value:
    """A value as it comes out of the wire between chief and workers: 6 digits of a float32.

    Example:

    >>> rounded(0.1), rounded(float(np.float32(0.1))), rounded(3)
    (0.1, 0.1, 3)
    """
    return float(f"{np.float32(value):.6g}") if isinstance(value, float) else value


def recipe_of(base: Recipe, values: Mapping[str, Value]) -> Recipe:
    """The recipe of a trial: its values on top of the base; names such as `tuner/epochs` are
    Keras Tuner's own.

    Example:

    >>> recipe_of(Recipe(), {"num_blocks": 2, "tuner/epochs": 5}).num_blocks
    2
    """
    return base.replace(**{k: rounded(v) for k, v in values.items() if "/" not in k})


def place_of(recipe: Recipe, space: Mapping[str, LogRange | Choice]) -> dict[str, Value] | None:
    """The values of a recipe in a space, or None where it lies outside.

    Example:

    >>> from kerasmlp.models.presets import PRESETS
    >>> place_of(PRESETS["paper-age"], SPACES["paper"])["gamma"]
    0.394794
    >>> place_of(PRESETS["paper-age"], SPACES["narrow"]) is None
    True
    """
    values = {name: getattr(recipe, name) for name in space}
    return values if all(kind.holds(values[name]) for name, kind in space.items()) else None


def middle_of(base: Recipe, space: Mapping[str, LogRange | Choice]) -> Recipe:
    """A recipe of the middle of a space, to measure what an epoch costs."""
    return recipe_of(base, {name: kind.middle for name, kind in space.items()})
