import keras
import numpy as np
from keras import ops

_START = float(np.log(np.e - 1))  # where softplus is 1
MIN_STD = 1e-3
"""Of a prediction, as a share of the targets' own: no row is known better."""


@keras.saving.register_keras_serializable("kerasmlp")
class GaussianHead(keras.layers.Layer):
    """Mean and standard deviation of a normal distribution, in the unit of the label.

    `mean = center + scale · x[0]` and `std = scale · spread · softplus(x[1])`, at least a
    thousandth of the scale. The network learns standardised numbers; `center`, `scale` and
    `spread` are weights that no gradient changes, 0, 1 and 1 until `set_unit`.

    Call arguments:
        inputs: `(batch, 2)`.

    Example:

    >>> head = GaussianHead()
    >>> head.build((None, 2))
    >>> head.set_unit(center=170.0, scale=10.0)
    >>> keras.ops.convert_to_numpy(head(np.zeros((1, 2), "float32")))
    array([[170.,  10.]], dtype=float32)

    Reference: Nix and Weigend, "Estimating the Mean and Variance of the Target Probability
    Distribution", 1994.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        for name, value in (("center", "zeros"), ("scale", "ones"), ("spread", "ones")):
            weight = self.add_weight(shape=(), initializer=value, trainable=False, name=name)
            setattr(self, name, weight)
        self.built = True

    def set_unit(self, *, center: float, scale: float, spread: float = 1.0) -> None:
        """Says in which unit it answers.

        Args:
            center: Mean of the labels learned from.
            scale: Their standard deviation, above 0.
            spread: Factor on the predicted standard deviations, above 0.
        """
        self.set_weights([np.float32(v) for v in (center, scale, spread)])

    def call(self, inputs):
        std = ops.maximum(ops.softplus(inputs[:, 1] + _START), MIN_STD) * self.spread
        return ops.stack([self.center + self.scale * inputs[:, 0], self.scale * std], axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape
