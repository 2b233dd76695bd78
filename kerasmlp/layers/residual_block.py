import keras

from kerasmlp.layers.ic_block import ICBlock
from kerasmlp.layers.initializers import Seed, spread_seed
from kerasmlp.utils.checks import check_bool


@keras.saving.register_keras_serializable("kerasmlp")
class ResidualBlock(ICBlock):
    """Two dense layers, each behind an IC layer, with a skip connection around them.

    `y = ReLU(W2 · IC(ReLU(W1 · IC(x))) + x)`, both W square.

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
        seed: Integer or None, of initial weights and dropout masks; of several members member
            m has `seed + m`, or that of a list.
        members: Networks whose units lie side by side.

    Call arguments:
        inputs: Tensor `(batch, members · width)`.
        training, sampling, masks: As of `ICLayer`.

    Input shape: `(batch, members · width)`.

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
        use_first_ic: bool = True,
        use_residual: bool = True,
        dropout_rate: float = 0.05,
        use_ic: bool = True,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        kernel_initializer: str = "fan_in_uniform",
        seed: Seed = None,
        members: int = 1,
        **kwargs,
    ):
        super().__init__(
            dropout_rate=dropout_rate,
            use_ic=use_ic,
            momentum=momentum,
            epsilon=epsilon,
            kernel_initializer=kernel_initializer,
            seed=seed,
            members=members,
            **kwargs,
        )
        self.use_first_ic = check_bool("use_first_ic", use_first_ic)
        self.use_residual = check_bool("use_residual", use_residual)

    def build(self, input_shape):
        width, seeds = self._width(input_shape), spread_seed(self.seed, 4)
        first_ic = self.use_ic and self.use_first_ic
        self.ic_0 = self._make_ic("ic_0", input_shape, seeds[0]) if first_ic else None
        self.dense_0 = self._make_dense("dense_0", width, input_shape, seeds[2])
        self.ic_1 = self._make_ic("ic_1", input_shape, seeds[1]) if self.use_ic else None
        self.dense_1 = self._make_dense("dense_1", width, input_shape, seeds[3])
        self.built = True

    def call(self, inputs, training=False, sampling=False, masks=None):
        modes = {"masks": masks, "training": training, "sampling": sampling}
        x = keras.ops.relu(self._through(self.ic_0, self.dense_0, inputs, **modes))
        x = self._through(self.ic_1, self.dense_1, x, **modes)
        if self.use_residual:
            if masks is not None:  # only one of the two may have passed a dropout
                x, inputs = masks.expand(x), masks.expand(inputs)
            x = x + inputs
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
            "use_first_ic": self.use_first_ic,
            "use_residual": self.use_residual,
        }
