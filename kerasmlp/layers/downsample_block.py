from __future__ import annotations

import keras

from kerasmlp.layers.ic_layer import ICLayer, ic_dense
from kerasmlp.layers.initializers import check_initializer, dense_initializers, spread_seed
from kerasmlp.utils.checks import check_bool, check_int, check_positive, check_rate, check_seed


@keras.saving.register_keras_serializable("kerasmlp")
class DownsampleBlock(keras.layers.Layer):
    """An IC layer and a dense layer that changes the width, in the paper to half of it.

    `y = ReLU(W · IC(x))`

    Training and sampling mean what they mean in `ICLayer`.

    Args:
        width: Number of output units.
        dropout_rate: Of the IC layer, in [0, 1).
        use_ic: False leaves the IC layer out.
        momentum: Of the moving statistics.
        epsilon: Added to the variance.
        kernel_initializer: `"fan_in_uniform"` (the original's, biases too) or
            the name of one of Keras' initialisers (biases zero).
        seed: Integer or None, of initial weights and dropout masks.

    Call arguments:
        inputs: Tensor `(batch, input_width)`.
        training: Bool.
        sampling: Bool.

    Input shape: `(batch, input_width)`.

    Output shape: `(batch, width)`.

    Raises:
        ValueError: if an argument is out of range.

    Example:

    >>> block = DownsampleBlock(width=8, seed=0)
    >>> block(np.ones((2, 16), "float32")).shape == (2, 8)
    True

    Reference: "Generalizing MLPs With Dropouts, Batch Normalization, and Skip
    Connections", equation 6.
    """

    def __init__(
        self,
        *,
        width: int,
        dropout_rate: float = 0.05,
        use_ic: bool = True,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        kernel_initializer: str = "fan_in_uniform",
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.width = check_int("width", width, minimum=1)
        self.dropout_rate = check_rate("dropout_rate", dropout_rate)
        self.use_ic = check_bool("use_ic", use_ic)
        self.momentum = check_rate("momentum", momentum)
        self.epsilon = check_positive("epsilon", epsilon)
        self.kernel_initializer = check_initializer(kernel_initializer)
        self.seed = check_seed(seed)

    def build(self, input_shape):
        ic_seed, dense_seed = spread_seed(self.seed, 2)
        self.ic = None
        if self.use_ic:
            self.ic = ICLayer(
                dropout_rate=self.dropout_rate,
                momentum=self.momentum,
                epsilon=self.epsilon,
                seed=ic_seed,
                dtype=self.dtype_policy,
                name="ic",
            )
            self.ic.build(input_shape)
        self.dense = keras.layers.Dense(
            self.width,
            dtype=self.dtype_policy,
            name="dense",
            **dense_initializers(self.kernel_initializer, input_shape[-1], dense_seed),
        )
        self.dense.build(input_shape)
        self.built = True

    def call(self, inputs, training=False, sampling=False):
        return keras.ops.relu(
            ic_dense(self.ic, self.dense, inputs, training=training, sampling=sampling)
        )

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.width)

    def get_config(self):
        return {
            **super().get_config(),
            "width": self.width,
            "dropout_rate": self.dropout_rate,
            "use_ic": self.use_ic,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "kernel_initializer": self.kernel_initializer,
            "seed": self.seed,
        }
