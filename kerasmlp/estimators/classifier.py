from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from kerasmlp.estimators.estimator import EmbeddingEstimator


@dataclass(kw_only=True, eq=False, repr=False)
class KerasMLPClassifier(ClassifierMixin, EmbeddingEstimator):
    """A residual MLP as a classifier of scikit-learn, trained by the one procedure of `train`.

    Every field of `Recipe` but those of ages is a parameter under its name
    (`KerasMLPClassifier(epochs=30, dropout_rate=0.3)`), so that `GridSearchCV` can vary it.
    It is cloned, pickled (as the bytes of its run, without code) and put into pipelines like
    any other estimator.

    Args:
        batch_size: Rows per step; None takes the recipe's, and 64 for fewer than 2,000 rows.
        random_state: Decides split, initial weights, shuffling, dropout and mixup; a whole
            number is the `seed` of `train`.
        validation_fraction: Of the rows, kept back to measure and to calibrate.
        num_samples: Stochastic passes behind `predict_uncertainty`.
        class_weight: From classes to weights, `"balanced"`, or None for all alike.

    Attributes:
        classes_: The classes, sorted.
        model_: The `FittedModel`, with `save`.
        n_iter_: Epochs that it trained.
        n_features_in_: Width of the rows.
        feature_names_in_: Names of the columns, where a table was given.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(60, 8)), np.repeat([-1, 1], 30)
    >>> X[:, 0] += 4 * y
    >>> classifier = KerasMLPClassifier(epochs=20, learning_rate=0.03, random_state=0).fit(X, y)
    >>> classifier.predict(X[:2]), classifier.predict_proba(X).shape
    (array([-1, -1]), (60, 2))
    """

    class_weight: Mapping | str | None = None

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> KerasMLPClassifier:
        """Trains on rows; those kept back measure and calibrate, without weights.

        Args:
            X: Rows of numbers, `(rows, width)`.
            y: Their classes.
            sample_weight: By which rows count, at least 0; None counts all alike.

        Returns:
            Itself.

        Raises:
            InputError: if a hyperparameter is out of range, or there is but one class.
        """
        X, y = self._rows_to_fit(X, y)
        check_classification_targets(y)
        of_classes = compute_sample_weight(self.class_weight, y)
        # Floats would be numbers to learn, and so might many different integers be.
        whole = y.astype(np.int64).astype(object) if y.dtype.kind in "iuf" else y
        self._fit(X, whole, sample_weight, of_classes)
        self.classes_ = self.model_.classes.astype(y.dtype)
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The likeliest class of each row.

        Args:
            X: Rows of numbers.
        """
        answers = self.predict_proba(X)
        return self.classes_[answers.argmax(axis=1)]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities of `classes_`, `(rows, classes)`, of the deterministic model with the
        temperature that the rows kept back have fitted.

        Args:
            X: Rows of numbers.
        """
        rows = self._rows(X)
        return self.model_.probabilities(rows)
