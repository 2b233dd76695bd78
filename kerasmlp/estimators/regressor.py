from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin

from kerasmlp.estimators.estimator import EmbeddingEstimator
from kerasmlp.models.presets import PRESETS
from kerasmlp.uncertainty.numbers import COVERAGES
from kerasmlp.utils.checks import reject

_PRESET = PRESETS["number"]


@dataclass(kw_only=True, eq=False, repr=False)
class KerasMLPRegressor(RegressorMixin, EmbeddingEstimator):
    """A residual MLP as a regressor of scikit-learn: a number with its standard deviation.

    All else is as of `KerasMLPClassifier`, with the hyperparameters of the preset `number`.

    Args:
        batch_size: Rows per step.
        random_state: Decides split, initial weights, shuffling, dropout and mixup; a whole
            number is the `seed` of `train`.
        validation_fraction: Of the rows, kept back to measure and to calibrate.
        num_samples: Stochastic passes behind `predict_uncertainty`.

    Attributes:
        model_: The `FittedModel`, with `save`.
        n_iter_: Epochs that it trained.
        n_features_in_: Width of the rows.
        feature_names_in_: Names of the columns, where a table was given.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 8))
    >>> y = 170 + 10 * X[:, 0] + rng.normal(size=200)
    >>> regressor = KerasMLPRegressor(epochs=10, min_steps=30, learning_rate=0.03)
    >>> regressor.fit(X, y).score(X, y) > 0.5, regressor.predict_interval(X).shape
    (True, (200, 2))
    """

    batch_size: int = _PRESET.batch_size
    dropout_rate: float = _PRESET.dropout_rate
    learning_rate: float = _PRESET.learning_rate
    epochs: int = _PRESET.epochs
    min_steps: int = _PRESET.min_steps
    mixup_alpha: float = _PRESET.mixup_alpha
    noise_std: float = _PRESET.noise_std
    refit: bool = _PRESET.refit

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> KerasMLPRegressor:
        """Trains on rows; those kept back measure and calibrate, without weights.

        Args:
            X: Rows of numbers, `(rows, width)`.
            y: Their numbers.
            sample_weight: By which rows count, at least 0; None counts all alike.

        Returns:
            Itself.

        Raises:
            InputError: if a hyperparameter is out of range, or all numbers are the same.
        """
        X, y = self._rows_to_fit(X, y, y_numeric=True)
        self._fit(X, y.astype(np.float64), sample_weight)
        return self

    def predict(
        self, X: ArrayLike, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The number of each row, by the deterministic model.

        Args:
            X: Rows of numbers.
            return_std: Return standard deviations too.

        Returns:
            Numbers `(rows,)`, or a pair of them and their standard deviations.
        """
        mean, std = self._answers(X).T
        return (mean, std) if return_std else mean

    def predict_interval(self, X: ArrayLike, coverage: float = 0.9) -> np.ndarray:
        """Intervals around the numbers of `predict`, `(rows, 2)`.

        They are split-conformal by the rows kept back, where these are enough for the
        coverage (9 for 0.9), else those of a normal distribution.

        Args:
            X: Rows of numbers.
            coverage: Share of numbers inside: 0.5 or 0.9.

        Raises:
            InputError: if `coverage` is another one.
        """
        percent = {c / 100: c for c in COVERAGES}
        if coverage not in percent:
            reject("coverage", "must be 0.5 or 0.9, which a run is calibrated for", coverage)
        return self.model_.intervals(self._answers(X), sampled=False)[percent[coverage]]

    def _answers(self, X: ArrayLike) -> np.ndarray:
        rows = self._rows(X)
        return np.asarray(self.model_.probabilities(rows), np.float64)
