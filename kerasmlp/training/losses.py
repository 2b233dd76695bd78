"""Losses: over ordered classes, of normal distributions, of several heads together."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kerasmlp.models.presets import Recipe
from kerasmlp.utils.checks import check_bool, check_int, check_positive, check_rate, reject

_HALF_LOG_2_PI = float(0.5 * np.log(2 * np.pi))


def recipe_loss(recipe: Recipe, *, ordered: bool, partial: bool = False) -> keras.losses.Loss:
    """The loss of a recipe, for classes that stand in an order or do not; see the class."""
    weight = recipe.rps_weight if ordered else 0.0
    return RankedCrossentropy(rps_weight=weight, partial=partial)


@keras.saving.register_keras_serializable("kerasmlp")
class RankedCrossentropy(keras.losses.Loss):
    """Cross-entropy plus the ranked probability score, for classes in an order.

    `CE(y, p) + rps_weight · Σ_k (CDF_p(k) − CDF_y(k))²`

    Cross-entropy treats a miss by one year like one by forty; the ranked
    probability score, the discrete form of the CRPS, does not.

    Args:
        rps_weight: Of the ranked probability score, 0 or more.
        partial: Rows count by the sum of their target probabilities, 0 where
            the label is unknown; else all sum to 1.
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

    def __init__(
        self,
        *,
        rps_weight: float = 1.0,
        partial: bool = False,
        name: str = "ranked_crossentropy",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.rps_weight = check_positive("rps_weight", rps_weight, zero=True)
        self.partial = check_bool("partial", partial)

    def call(self, y_true, y_pred):
        loss = keras.losses.categorical_crossentropy(y_true, y_pred)
        if self.rps_weight:
            mass = ops.sum(y_true, axis=-1, keepdims=True) if self.partial else None
            if self.partial:
                y_true = y_true / ops.where(mass > 0, mass, 1.0)
            distance = ops.cumsum(y_pred - y_true, axis=-1)
            score = self.rps_weight * ops.sum(ops.square(distance), axis=-1)
            loss += score * mass[:, 0] if self.partial else score
        return loss

    def get_config(self):
        own = {"rps_weight": self.rps_weight, "partial": self.partial}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("kerasmlp")
class GaussianNLL(keras.losses.Loss):
    """Negative log-likelihood of normal distributions, each weighted by `std ** (2 · beta)`.

    Without the weight, rows that are predicted badly get a large standard deviation and are
    not learned any more; at 1 the mean is learned as by the squared error.

    Args:
        beta: Of the weight, in [0, 1).
        name: Of the loss.

    Call arguments:
        y_true: `(batch, 2)`: the number times the weight of its row, and that weight, which
            is 0 where the number is unknown.
        y_pred: Mean and standard deviation, `(batch, 2)`.

    Raises:
        ValueError: if `beta` is out of range.

    Example:

    >>> y, answer = np.float32([[3, 1], [0, 0]]), np.float32([[1, 2], [9, 1]])
    >>> GaussianNLL(beta=0.0).call(y, answer).numpy().round(4)
    array([2.1121, 0.    ], dtype=float32)

    Reference: Seitzer et al., "On the Pitfalls of Heteroscedastic Uncertainty Estimation
    with Probabilistic Neural Networks", 2022.
    """

    def __init__(self, *, beta: float = 0.5, name: str = "gaussian_nll", **kwargs):
        super().__init__(name=name, **kwargs)
        self.beta = check_rate("beta", beta)

    def call(self, y_true, y_pred):
        weight, mean, std = y_true[:, 1], y_pred[:, 0], y_pred[:, 1]
        number = y_true[:, 0] / ops.where(weight > 0, weight, 1.0)
        nll = 0.5 * ops.square((number - mean) / std) + ops.log(std) + _HALF_LOG_2_PI
        if self.beta:
            nll *= ops.stop_gradient(std ** (2 * self.beta))
        return weight * nll

    def get_config(self):
        return {**super().get_config(), "beta": self.beta}


@keras.saving.register_keras_serializable("kerasmlp")
class GaussianCrossentropy(keras.losses.Loss):
    """Cross-entropy of predicted normal distributions against given ones.

    `log σ + (s² + (m − μ)²) / 2σ² + log(2π) / 2`, least where `μ = m` and `σ = s`.

    Args:
        name: Of the loss.

    Call arguments:
        y_true: Mean and standard deviation, `(batch, 2)`.
        y_pred: The same of the prediction.

    Example:

    >>> given, answers = np.float32([[1, 2]] * 3), np.float32([[1, 2], [1, 1], [3, 2]])
    >>> GaussianCrossentropy().call(given, answers).numpy().round(4)
    array([2.1121, 2.9189, 2.6121], dtype=float32)
    """

    def __init__(self, *, name: str = "gaussian_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        std = y_pred[:, 1]
        squares = ops.square(y_true[:, 1]) + ops.square(y_true[:, 0] - y_pred[:, 0])
        return ops.log(std) + 0.5 * squares / ops.square(std) + _HALF_LOG_2_PI


@keras.saving.register_keras_serializable("kerasmlp")
class JointLoss(keras.losses.Loss):
    """The weighted sum of the losses of several heads, whose outputs lie side by side.

    A row whose targets of a head are zeros, since its label is unknown, counts for the others.

    Args:
        losses: One per head.
        sizes: Columns of each head, of targets as of outputs.
        weights: Of the losses, above 0.
        name: Of the loss.

    Raises:
        ValueError: if a loss is no instance of `keras.losses.Loss`, or their number differs
            from those of sizes or weights.

    Call arguments:
        y_true: Targets of all heads, `(batch, columns)`.
        y_pred: Outputs of the same shape.

    Example:

    >>> loss = JointLoss([RankedCrossentropy(rps_weight=0.0)] * 2, sizes=[2, 2], weights=[1, 3])
    >>> y = np.float32([[1, 0, 0, 0]])  # the second label is unknown
    >>> round(float(loss(y, np.float32([[0.5, 0.5, 0.9, 0.1]]))), 4)
    0.6931
    """

    def __init__(
        self,
        losses: Sequence[keras.losses.Loss],
        *,
        sizes: Sequence[int],
        weights: Sequence[float],
        name: str = "joint_loss",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.losses = [keras.losses.get(loss) for loss in losses]
        if others := [loss for loss in self.losses if not isinstance(loss, keras.losses.Loss)]:
            reject("losses", "must be instances of keras.losses.Loss", others[0])
        self.sizes = [check_int("sizes", size, minimum=1) for size in sizes]
        self.weights = [check_positive("weights", weight) for weight in weights]
        if not len(self.losses) == len(self.sizes) == len(self.weights):
            lengths = len(self.losses), len(self.sizes), len(self.weights)
            reject("losses", "must be as many as sizes and weights", lengths)

    def call(self, y_true, y_pred):
        total, start = 0.0, 0
        for loss, size, weight in zip(self.losses, self.sizes, self.weights, strict=True):
            columns = slice(start, start + size)
            total += weight * loss.call(y_true[:, columns], y_pred[:, columns])
            start += size
        return total

    def get_config(self):
        losses = [keras.saving.serialize_keras_object(loss) for loss in self.losses]
        own = {"losses": losses, "sizes": self.sizes, "weights": self.weights}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("kerasmlp")
class MemberLoss(keras.losses.Loss):
    """The sum of the losses of members, so that each learns as it would alone.

    Args:
        loss: Of each.
        members: Number of networks.
        name: Of the loss.

    Call arguments:
        y_true: Targets of each, `(batch, members, columns)`.
        y_pred: Outputs of the same shape.

    Example:

    >>> loss = MemberLoss(RankedCrossentropy(rps_weight=0.0), 2)
    >>> y = np.float32([[[1, 0], [1, 0]]])
    >>> round(float(loss(y, np.float32([[[0.5, 0.5], [0.25, 0.75]]]))), 4)
    2.0794
    """

    def __init__(
        self, loss: keras.losses.Loss, members: int, *, name: str = "member_loss", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        self.loss = keras.losses.get(loss)
        if not isinstance(self.loss, keras.losses.Loss):
            reject("loss", "must be an instance of keras.losses.Loss", loss)
        self.members = check_int("members", members, minimum=1)

    def call(self, y_true, y_pred):
        return ops.sum(self.each(y_true, y_pred), axis=-1)

    def each(self, y_true, y_pred):
        """The loss of each member, `(batch, members)`."""
        each = (ops.reshape(y, (-1, y.shape[-1])) for y in (y_true, y_pred))
        return ops.reshape(self.loss.call(*each), (-1, self.members))

    def get_config(self):
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss, "members": self.members}


@keras.saving.register_keras_serializable("kerasmlp")
class MemberLosses(keras.metrics.Metric):
    """The mean loss of each member over the batches so far, `(members,)`.

    Args:
        loss: Of each.
        members: Number of networks.
        name: Under which it is logged.

    Example:

    >>> losses = MemberLosses(RankedCrossentropy(rps_weight=0.0), 2)
    >>> y = np.float32([[[1, 0], [1, 0]]])
    >>> losses.update_state(y, np.float32([[[0.5, 0.5], [0.25, 0.75]]]))
    >>> keras.ops.convert_to_numpy(losses.result()).round(4)
    array([0.6931, 1.3863], dtype=float32)
    """

    def __init__(self, loss: keras.losses.Loss, members: int, *, name: str = "each_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self._loss = MemberLoss(loss, members)
        self.total = self.add_variable((members,), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(ops.mean(self._loss.each(y_true, y_pred), axis=0))
        self.count.assign_add(1.0)

    def result(self):
        return self.total / ops.maximum(self.count, 1.0)

    def get_config(self):
        inner = self._loss.get_config()
        return {**super().get_config(), "loss": inner["loss"], "members": inner["members"]}
