"""Losses over ordered classes."""

import keras
from keras import ops

from kerasmlp.models.presets import Recipe
from kerasmlp.utils.checks import check_positive


def recipe_loss(recipe: Recipe, *, ordered: bool) -> keras.losses.Loss:
    """The loss of a recipe, for classes that stand in an order or do not."""
    return RankedCrossentropy(rps_weight=recipe.rps_weight if ordered else 0.0)


@keras.saving.register_keras_serializable("kerasmlp")
class RankedCrossentropy(keras.losses.Loss):
    """Cross-entropy plus the ranked probability score, for classes in an order.

    `CE(y, p) + rps_weight · Σ_k (CDF_p(k) − CDF_y(k))²`

    Cross-entropy treats a miss by one year like one by forty; the ranked
    probability score, the discrete form of the CRPS, does not.

    Args:
        rps_weight: Of the ranked probability score, 0 or more.
        name: Of the loss.

    Call arguments:
        y_true: Target probabilities `(batch, num_classes)`.
        y_pred: Probabilities of the same shape.

    Raises:
        ValueError: if `rps_weight` is negative.

    Example:

    >>> loss = RankedCrossentropy(rps_weight=1.0)
    >>> y = np.eye(4, dtype="float32")[:1]
    >>> near, far = np.float32([[0.5, 0.5, 0, 0]]), np.float32([[0.5, 0, 0, 0.5]])
    >>> bool(loss(y, near) < loss(y, far))
    True

    Reference: Epstein, "A Scoring System for Probability Forecasts of Ranked
    Categories", 1969.
    """

    def __init__(self, *, rps_weight: float = 1.0, name: str = "ranked_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.rps_weight = check_positive("rps_weight", rps_weight, zero=True)

    def call(self, y_true, y_pred):
        loss = keras.losses.categorical_crossentropy(y_true, y_pred)
        if self.rps_weight:
            distance = ops.cumsum(y_pred - y_true, axis=-1)
            loss += self.rps_weight * ops.sum(ops.square(distance), axis=-1)
        return loss

    def get_config(self):
        return {**super().get_config(), "rps_weight": self.rps_weight}
