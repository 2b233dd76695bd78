import keras

from kerasmlp.layers.ic_layer import ICLayer
from kerasmlp.layers.initializers import check_initializer, dense_initializers
from kerasmlp.utils.checks import check_bool, check_positive, check_rate, check_seed


class ICBlock(keras.layers.Layer):
    """Dense layers behind IC layers: what `ResidualBlock` and `DownsampleBlock` share.

    Their arguments are those of `ResidualBlock`.
    """

    def __init__(
        self,
        *,
        dropout_rate: float,
        use_ic: bool,
        momentum: float,
        epsilon: float,
        kernel_initializer: str,
        seed: int | None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.dropout_rate = check_rate("dropout_rate", dropout_rate)
        self.use_ic = check_bool("use_ic", use_ic)
        self.momentum = check_rate("momentum", momentum)
        self.epsilon = check_positive("epsilon", epsilon)
        self.kernel_initializer = check_initializer(kernel_initializer)
        self.seed = check_seed(seed)

    def _make_ic(self, name: str, input_shape, seed: int | None) -> ICLayer:
        ic = ICLayer(
            dropout_rate=self.dropout_rate,
            momentum=self.momentum,
            epsilon=self.epsilon,
            seed=seed,
            dtype=self.dtype_policy,
            name=name,
        )
        ic.build(input_shape)
        return ic

    def _make_dense(self, name: str, width: int, input_shape, seed: int | None):
        initializers = dense_initializers(self.kernel_initializer, input_shape[-1], seed)
        dense = keras.layers.Dense(width, dtype=self.dtype_policy, name=name, **initializers)
        dense.build(input_shape)
        return dense

    def _through(self, ic: ICLayer | None, dense: keras.layers.Dense, x, masks, **modes):
        """`dense(ic(x))`, or `dense(x)` without an IC layer."""
        if ic is None:
            return dense(x)
        if masks is not None and ic.dropout_rate:
            return masks.dropout_dense(ic.norm(x), ic.dropout_rate, dense)
        return dense(ic(x, masks=masks, **modes))

    def get_config(self):
        return {
            **super().get_config(),
            "dropout_rate": self.dropout_rate,
            "use_ic": self.use_ic,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "kernel_initializer": self.kernel_initializer,
            "seed": self.seed,
        }
