"""What the estimators for scikit-learn share: flat hyperparameters, checked rows, one training."""

from dataclasses import dataclass, fields, make_dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from kerasmlp.data.examples import VALIDATION_SHARE
from kerasmlp.models.presets import Recipe
from kerasmlp.training.fitted import checked_weights, fit, for_rows
from kerasmlp.utils.checks import is_whole

_OF_STORES = ("label_sigma_years", "rps_weight", "conformal_by")
_OF_RECIPE = [(f.name, f.type, f.default) for f in fields(Recipe) if f.name not in _OF_STORES]
_MIN_ROWS = 3  # one to keep back, two for batch norm to take statistics of

Hyperparameters = make_dataclass("Hyperparameters", _OF_RECIPE, kw_only=True, eq=False, repr=False)


@dataclass(kw_only=True, eq=False, repr=False)
class EmbeddingEstimator(Hyperparameters, BaseEstimator):
    """An estimator with the fields of a `Recipe` as flat parameters.

    Args:
        batch_size: Rows per step; None takes the recipe's, and 64 for fewer than 2,000 rows.
        random_state: Decides split, initial weights, shuffling, dropout and mixup; a whole
            number is the `seed` of `train`.
        validation_fraction: Of the rows, kept back to measure and to calibrate.
        num_samples: Stochastic passes behind `predict_uncertainty`.
    """

    batch_size: int | None = None
    random_state: int | np.random.RandomState | None = None
    validation_fraction: float = VALIDATION_SHARE
    num_samples: int = 64

    def _fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        sample_weight: ArrayLike | None,
        of_classes: np.ndarray | float = 1.0,
    ) -> None:
        weights = np.full(len(X), of_classes)
        if sample_weight is not None:
            weights *= checked_weights(sample_weight, len(X))
        values = {name: getattr(self, name) for name, _, _ in _OF_RECIPE}
        if self.batch_size is None:
            values["batch_size"] = for_rows(Recipe(), len(X)).batch_size
        self.model_ = fit(
            X,
            y,
            recipe=Recipe(**values),
            weights=None if (weights == 1).all() else weights,
            seed=_seed_of(self.random_state),
            validation_share=self.validation_fraction,
        )
        self.n_iter_ = self.model_.report["epochs"]

    def _rows_to_fit(self, X: ArrayLike, y: ArrayLike, **how) -> tuple[np.ndarray, np.ndarray]:
        return validate_data(self, X, y, ensure_min_samples=_MIN_ROWS, **how)

    def _rows(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, reset=False)

    def predict_uncertainty(self, X: ArrayLike) -> dict[str, np.ndarray]:
        """Mean and measures of uncertainty over `num_samples` passes of MC dropout.

        Args:
            X: Rows, `(rows, n_features_in_)`.

        Returns:
            Of classes as of the function `predict_uncertainty`, of the model with its
            `mc_temperature`. Of numbers `mean`, `(rows, 2)`: with the standard deviation of the
            prediction, and `epistemic_std`, `aleatoric_std` and `total_std`, `(rows,)`.
        """
        rows = self._rows(X)
        how = {"num_samples": self.num_samples, "seed": self.model_.config["seed"]}
        chunks = list(self.model_.uncertainty(rows, **how))
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _seed_of(random_state) -> int:
    if is_whole(random_state) and 0 <= random_state < 1 << 31:
        return int(random_state)
    return int(check_random_state(random_state).randint((1 << 31) - 1))
