import keras

from kerasmlp.layers.batch_norm import BatchNorm
from kerasmlp.layers.ic_layer import ICLayer
from kerasmlp.layers.initializers import spread_seed
from kerasmlp.models.arrangements import order_of
from kerasmlp.utils.checks import check_rate, check_seed


class ResNetBuilder:
    """Adds the parts of a ResNet to a functional graph, in the order of an arrangement.

    Convolutions have no bias, their kernels start by He's rule, and the same seed
    gives all arrangements the same ones. Momentum and epsilon of batch norm are
    PyTorch's.

    Args:
        depth: Of the network; at least a third of its layers.
        arrangement: Of `ARRANGEMENTS`.
        bottleneck: Units of 1×1, 3×3 and 1×1 convolutions with four times the
            channels outside, and not of two 3×3.
        dropout_rate: Of the IC layers, in [0, 1).
        seed: Integer or None, of initial weights and dropout masks.
        dtype: Policy of all layers but the softmax head.

    Raises:
        InputError: if an argument is out of range.

    Example:

    >>> parts = ResNetBuilder(
    ...     depth=20, arrangement="ic-conv-relu", bottleneck=False, dropout_rate=0.1, seed=0
    ... )
    >>> x = parts.unit(keras.Input((8, 8, 3)), 4, stride=2, place="0_0")
    >>> x.shape
    (None, 4, 4, 4)
    """

    def __init__(
        self,
        *,
        depth: int,
        arrangement: str,
        bottleneck: bool,
        dropout_rate: float,
        seed: int | None,
        dtype: str | keras.DTypePolicy | None = None,
    ):
        self._order = order_of(arrangement, bottleneck)
        self._bottleneck = bottleneck
        self._dropout_rate = check_rate("dropout_rate", dropout_rate)
        self._dtype = dtype
        kernels, masks = spread_seed(check_seed(seed), 2)
        self._kernel_seeds = iter(spread_seed(kernels, depth + 8))
        self._mask_seeds = iter(spread_seed(masks, depth + 8))

    def stem(self, x, filters: int, size: int, *, stride: int = 1, pool: bool = False):
        """The first convolution."""
        x = self._conv(x, filters, size, stride, "conv_stem")
        if pool:
            pooling = keras.layers.MaxPooling2D(3, 2, "same", dtype=self._dtype, name="pool_stem")
            x = pooling(x)
        return self._add(x, self._order.after, "stem")

    def unit(self, x, filters: int, *, stride: int, place: str):
        """A residual unit; where it changes the shape, a 1×1 convolution skips it."""
        convolutions = ((3, filters), (3, filters))  # size, filters
        if self._bottleneck:
            convolutions = ((1, filters), (3, filters), (1, 4 * filters))
        last, width = len(convolutions) - 1, convolutions[-1][1]
        skip = x
        for k, (size, count) in enumerate(convolutions):
            x = self._add(x, self._order.before, f"{place}_{k}")
            if k == 0 and (stride > 1 or skip.shape[-1] != width):
                skip = self._conv(x, width, 1, stride, f"skip_{place}")
            x = self._conv(x, count, size, stride if k == 0 else 1, f"conv_{place}_{k}")
            waits = self._order.relu_after_sum and k == last
            after = [name for name in self._order.after if not (waits and name == "relu")]
            x = self._add(x, after, f"{place}_{k}")
        x = keras.layers.Add(dtype=self._dtype, name=f"sum_{place}")([x, skip])
        return self._add(x, ("relu",), place) if self._order.relu_after_sum else x

    def groups(self, x, groups):
        """Groups of so many units with so many filters; all but the first halve the sides."""
        for group, (filters, units) in enumerate(groups):
            for unit in range(units):
                stride = 2 if group and not unit else 1
                x = self.unit(x, filters, stride=stride, place=f"{group}_{unit}")
        return x

    def head(self, x, num_classes: int):
        """Average over all pixels, dense layer, softmax."""
        x = self._add(x, self._order.before, "end")
        x = keras.layers.GlobalAveragePooling2D(dtype=self._dtype, name="pool_end")(x)
        initializer = keras.initializers.HeNormal(seed=next(self._kernel_seeds))
        head = {"kernel_initializer": initializer, "dtype": "float32", "name": "logits"}
        x = keras.layers.Dense(num_classes, **head)(x)
        return keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x)

    def _conv(self, x, filters: int, size: int, stride: int, name: str):
        return keras.layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.HeNormal(seed=next(self._kernel_seeds)),
            dtype=self._dtype,
            name=name,
        )(x)

    def _add(self, x, parts, place: str):
        for part in parts:
            common = {"dtype": self._dtype, "name": f"{part}_{place}"}
            if part == "relu":
                layer = keras.layers.Activation("relu", **common)
            elif part == "ic":
                seed = next(self._mask_seeds)
                layer = ICLayer(dropout_rate=self._dropout_rate, seed=seed, **common)
            else:
                layer = BatchNorm(momentum=0.9, epsilon=1e-5, **common)
            x = layer(x)
        return x
