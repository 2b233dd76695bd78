import keras
import numpy as np
from keras import ops

from kerasmlp.utils.checks import check_int, check_positive, reject

_START = float(np.log(np.e - 1))  # where softplus is 1
MIN_STD = 1e-3
"""Of a prediction, as a share of the targets' own: no row is known better."""


@keras.saving.register_keras_serializable("kerasmlp")
class GaussianHead(keras.layers.Layer):
    """Mean and standard deviation of a normal distribution, in the unit of the label.

    `mean = center + scale · x[0]` and `std = scale · √((spread · s)² + floor²)` with
    `s = softplus(x[1] + log(e − 1))`, at least a thousandth. The network learns standardised
    numbers; `center`, `scale`, `spread` and `floor` are weights that no gradient changes, 0,
    1, 1 and 0 until `set_unit`. It computes in float32 under any policy.

    Args:
        members: Networks whose two columns lie side by side. Their answer is the mean and the
            standard deviation of the mixture.

    Call arguments:
        inputs: `(batch, members · 2)`.
        apart: True gives the answer of each member, `(batch, members, 2)`.

    Raises:
        ValueError: if there are not two columns of each member.

    Example:

    >>> head = GaussianHead()
    >>> head.build((None, 2))
    >>> head.set_unit(center=170.0, scale=10.0)
    >>> keras.ops.convert_to_numpy(head(np.zeros((1, 2), "float32")))
    array([[170.,  10.]], dtype=float32)

    Reference: Nix and Weigend, "Estimating the Mean and Variance of the Target Probability
    Distribution", 1994.
    """

    def __init__(self, *, members: int = 1, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.members = check_int("members", members, minimum=1)
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: 2 * self.members})

    def build(self, input_shape):
        starts = {"center": "zeros", "scale": "ones", "spread": "ones", "floor": "zeros"}
        for name, value in starts.items():
            how = {"trainable": False, "autocast": False, "dtype": "float32", "name": name}
            setattr(self, name, self.add_weight(shape=(), initializer=value, **how))
        self.built = True

    def set_unit(
        self, *, center: float, scale: float, spread: float = 1.0, floor: float = 0.0
    ) -> None:
        """Says in which unit it answers.

        Args:
            center: Mean of the labels learned from.
            scale: Their standard deviation, above 0.
            spread: Factor on the predicted standard deviations, at least 0.
            floor: Standard deviation in units of `scale` that is common to all rows, at
                least 0.

        Raises:
            ValueError: if `scale` is not above 0, nor `spread` or `floor`, or the layer is not
                built yet.
        """
        check_positive("scale", scale)
        check_positive("floor", floor, zero=True)
        check_positive("spread", spread, zero=floor > 0)
        if not self.built:
            reject("layer", "must be built, or called once, before it gets a unit", self.name)
        self.set_weights([np.float32(v) for v in (center, scale, spread, floor)])

    def call(self, inputs, apart=False):
        x = ops.cast(inputs, "float32")
        if self.members == 1 and not apart:
            return self._answer(x[:, 0], x[:, 1])
        x = ops.reshape(x, (-1, self.members, 2))
        each = self._answer(x[:, :, 0], x[:, :, 1])
        return each if apart else _mixture(each)

    def _answer(self, mean, std):
        std = ops.maximum(ops.softplus(std + _START), MIN_STD) * self.spread
        std = ops.sqrt(std * std + self.floor * self.floor)
        return ops.stack([self.center + self.scale * mean, self.scale * std], axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2)

    def compute_output_spec(self, inputs, apart=False):
        rows = inputs.shape[0]
        shape = (rows, self.members, 2) if apart else (rows, 2)
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self):
        own = {"members": self.members} if self.members > 1 else {}
        return {**super().get_config(), **own}


def _mixture(each):
    """Mean and standard deviation of equal shares of normal distributions `(batch, members, 2)`."""
    means, stds = each[:, :, 0], each[:, :, 1]
    mean = ops.mean(means, axis=1)
    variance = ops.mean(ops.square(stds) + ops.square(means - mean[:, None]), axis=1)
    return ops.stack([mean, ops.sqrt(variance)], axis=-1)
