"""The two stages of the search: ranges, and Keras Tuner's random search over them."""

from __future__ import annotations

import os
from pathlib import Path

from keras_tuner import Objective
from keras_tuner.engine.trial import Trial
from keras_tuner.oracles import RandomSearchOracle

from kerasmlp.experiments.tuning.one_file import OneFileState, hyperparameters, oracle_seed
from kerasmlp.experiments.tuning.space import LogRange, rounded

STAGES = (
    {"learning_rate": LogRange(1e-6, 1e-3), "regularization": LogRange(1e-6, 1e1)},
    {"learning_rate": LogRange(1e-5, 1e-3), "regularization": LogRange(1e-5, 1e-3)},
)
"""The paper's: wide, then around the ten best."""


class StageOracle(OneFileState, RandomSearchOracle):
    """Draws the values of one stage, log-uniform, and remembers what came of them.

    Args:
        number: Of the stage, from 0.
        trials: To draw.
        seed: The same seed, the same values.
        path: Of its state; what lies there is taken up.

    Example:

    >>> import tempfile
    >>> oracle = StageOracle(1, 2, 0, Path(tempfile.mkdtemp(), "stage-2.json"))
    >>> trial = oracle.create_trial("here")
    >>> all(1e-5 <= value <= 1e-3 for value in oracle.values_of(trial).values())
    True
    """

    measures = ("val_mae_years",)

    def __init__(self, number: int, trials: int, seed: int, path: str | os.PathLike):
        self.number, self.path, self.dimensions = number, Path(path), STAGES[number]
        super().__init__(
            Objective("val_mae_years", "min"),
            max_trials=trials,
            hyperparameters=hyperparameters(self.dimensions),
            seed=oracle_seed(len(STAGES) * seed + number),
        )
        self.verbose = 0
        if self.path.exists():
            self.reload()

    def values_of(self, trial: Trial) -> dict[str, float]:
        return {k: rounded(trial.hyperparameters.values[k]) for k in self.dimensions}

    def rows(self) -> list[dict]:
        """Completed trials in their order."""
        return [
            {"stage": self.number + 1, "trial": k, **self.values_of(t), "val_mae_years": t.score}
            for k, t in enumerate(self.in_order())
        ]
