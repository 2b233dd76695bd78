import keras

from kerasmlp.layers.ic_block import ICBlock
from kerasmlp.layers.initializers import Seed, spread_seed
from kerasmlp.utils.checks import check_int


@keras.saving.register_keras_serializable("kerasmlp")
class DownsampleBlock(ICBlock):
    """An IC layer and a dense layer that changes the width, in the paper to half of it.

    `y = ReLU(W · IC(x))`

    Args:
        width: Number of output units, of each member.
        dropout_rate: Of the IC layer, in [0, 1).
        use_ic: False leaves the IC layer out.
        momentum: Of the moving statistics.
        epsilon: Added to the variance.
        kernel_initializer: As of `ResidualBlock`.
        seed: Integer or None, of initial weights and dropout masks; of several members member
            m has `seed + m`, or that of a list.
        members: Networks whose units lie side by side.

    Call arguments:
        inputs: Tensor `(batch, members · input_width)`.
        training, sampling, masks: As of `ICLayer`.

    Input shape: `(batch, members · input_width)`.

    Output shape: `(batch, members · width)`.

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
        self.width = check_int("width", width, minimum=1)

    def build(self, input_shape):
        ic_seed, dense_seed = spread_seed(self.seed, 2)
        self.ic = self._make_ic("ic", input_shape, ic_seed) if self.use_ic else None
        self.dense = self._make_dense("dense", self.width, input_shape, dense_seed)
        self.built = True

    def call(self, inputs, training=False, sampling=False, masks=None):
        x = self._through(self.ic, self.dense, inputs, masks, training=training, sampling=sampling)
        return keras.ops.relu(x)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.members * self.width)

    def get_config(self):
        return {**super().get_config(), "width": self.width}
