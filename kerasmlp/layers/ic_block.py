import keras

from kerasmlp.layers.ic_layer import ICLayer
from kerasmlp.layers.initializers import Seed, check_initializer, check_seeds, dense
from kerasmlp.layers.member_dense import split_width
from kerasmlp.utils.checks import check_bool, check_int, check_positive, check_rate


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
        seed: Seed,
        members: int = 1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.dropout_rate = check_rate("dropout_rate", dropout_rate)
        self.use_ic = check_bool("use_ic", use_ic)
        self.momentum = check_rate("momentum", momentum)
        self.epsilon = check_positive("epsilon", epsilon)
        self.kernel_initializer = check_initializer(kernel_initializer)
        self.members = check_int("members", members, minimum=1)
        self.seed = check_seeds(seed, self.members)

    def _make_ic(self, name: str, input_shape, seed: Seed) -> ICLayer:
        ic = ICLayer(
            dropout_rate=self.dropout_rate,
            momentum=self.momentum,
            epsilon=self.epsilon,
            seed=seed,
            members=self.members,
            dtype=self.dtype_policy,
            name=name,
        )
        ic.build(input_shape)
        return ic

    def _width(self, input_shape) -> int:
        """Units of each member that come in."""
        return split_width(input_shape[-1], self.members)

    def _make_dense(self, name: str, units: int, input_shape, seed: Seed):
        how = {"members": self.members, "dtype": self.dtype_policy, "name": name}
        layer = dense(units, self.kernel_initializer, self._width(input_shape), seed, **how)
        layer.build(input_shape)
        return layer

    def _through(self, ic: ICLayer | None, dense: keras.layers.Layer, x, masks, **modes):
        """`dense(ic(x))`, or `dense(x)` without an IC layer."""
        if ic is None:
            return dense(x) if masks is None else masks.dense(dense, x)
        if masks is not None and ic.dropout_rate and self.members == 1:
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
            **({"members": self.members} if self.members > 1 else {}),
        }
