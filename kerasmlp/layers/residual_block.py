from __future__ import annotations

import keras

from kerasmlp.layers.ic_layer import ICLayer, ic_dense
from kerasmlp.layers.initializers import check_initializer, dense_initializers, spread_seed
from kerasmlp.layers.masks import add_skip
from kerasmlp.utils.checks import check_bool, check_positive, check_rate, check_seed


@keras.saving.register_keras_serializable("kerasmlp")
class ResidualBlock(keras.layers.Layer):
    """Two dense layers, each behind an IC layer, with a skip connection around them.

    `y = ReLU(W2 · IC(ReLU(W1 · IC(x))) + x)`, both W square.

    Training and sampling mean what they mean in `ICLayer`.

    Args:
        dropout_rate: Of both IC layers, in [0, 1).
        use_ic: False leaves both IC layers out (ablation).
        use_first_ic: False leaves out the first one only; the paper does so
            where the block's input is the embedding itself.
        use_residual: False leaves the skip connection out (ablation).
        momentum: Of the moving statistics.
        epsilon: Added to the variance.
        kernel_initializer: `"fan_in_uniform"` (the original's, biases too) or
            the name of one of Keras' initialisers (biases zero).
        seed: Integer or None, of initial weights and dropout masks.

    Call arguments:
        inputs: Tensor `(batch, width)`.
        training: Bool.
        sampling: Bool.

    Input shape: `(batch, width)`.

    Output shape: the same.

    Raises:
        ValueError: if an argument is out of range.

    Example:

    >>> block = ResidualBlock(dropout_rate=0.1, seed=0)
    >>> block(np.ones((2, 16), "float32")).shape == (2, 16)
    True
    >>> block.count_params()  # 2 · (16² + 16) weights, 2 · 4 · 16 of batch norm
    672

    Reference: "Generalizing MLPs With Dropouts, Batch Normalization, and Skip
    Connections", equation 5.
    """

    def __init__(
        self,
        *,
        dropout_rate: float = 0.05,
        use_ic: bool = True,
        use_first_ic: bool = True,
        use_residual: bool = True,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        kernel_initializer: str = "fan_in_uniform",
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.dropout_rate = check_rate("dropout_rate", dropout_rate)
        self.use_ic = check_bool("use_ic", use_ic)
        self.use_first_ic = check_bool("use_first_ic", use_first_ic)
        self.use_residual = check_bool("use_residual", use_residual)
        self.momentum = check_rate("momentum", momentum)
        self.epsilon = check_positive("epsilon", epsilon)
        self.kernel_initializer = check_initializer(kernel_initializer)
        self.seed = check_seed(seed)

    def build(self, input_shape):
        width = input_shape[-1]
        seeds = spread_seed(self.seed, 4)

        def make_ic(index):
            ic = ICLayer(
                dropout_rate=self.dropout_rate,
                momentum=self.momentum,
                epsilon=self.epsilon,
                seed=seeds[index],
                dtype=self.dtype_policy,
                name=f"ic_{index}",
            )
            ic.build(input_shape)
            return ic

        def make_dense(index):
            dense = keras.layers.Dense(
                width,
                dtype=self.dtype_policy,
                name=f"dense_{index}",
                **dense_initializers(self.kernel_initializer, width, seeds[2 + index]),
            )
            dense.build(input_shape)
            return dense

        self.ic_0 = make_ic(0) if self.use_ic and self.use_first_ic else None
        self.dense_0 = make_dense(0)
        self.ic_1 = make_ic(1) if self.use_ic else None
        self.dense_1 = make_dense(1)
        self.built = True

    def call(self, inputs, training=False, sampling=False):
        modes = {"training": training, "sampling": sampling}
        x = keras.ops.relu(ic_dense(self.ic_0, self.dense_0, inputs, **modes))
        x = ic_dense(self.ic_1, self.dense_1, x, **modes)
        if self.use_residual:
            x = add_skip(x, inputs, sampling)
            # ReLU, in words that TensorFlow's remapper does not know: with oneDNN's fusions on, it
            # fuses MatMul, BiasAdd, Add and Relu into a node that has no kernel, prints a page of
            # errors in every fit and predict, and goes back to the graph as it was.
            return keras.ops.where(x <= 0, 0, x)
        return keras.ops.relu(x)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "dropout_rate": self.dropout_rate,
            "use_ic": self.use_ic,
            "use_first_ic": self.use_first_ic,
            "use_residual": self.use_residual,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "kernel_initializer": self.kernel_initializer,
            "seed": self.seed,
        }
