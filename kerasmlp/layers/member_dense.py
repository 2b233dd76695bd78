from collections.abc import Sequence

import keras
from keras import ops

from kerasmlp.utils.checks import check_int, reject

Initializers = str | keras.initializers.Initializer | Sequence


@keras.saving.register_keras_serializable("kerasmlp")
class MemberDense(keras.layers.Layer):
    """A dense layer of each of several networks, computed as one batched product.

    `y[:, m] = x[:, m] · kernel[m] + bias[m]`

    The units of all members lie side by side in one axis, those of the first in front: what
    works on columns alone, such as batch norm or ReLU, takes them as they are.

    Args:
        units: Of each member.
        members: Number of networks.
        kernel_initializer: Of Keras' initialisers or their names; a list has one per member.
        bias_initializer: The same.

    Call arguments:
        inputs: Tensor `(batch, members · width)`.

    Input shape: `(batch, members · width)`.

    Output shape: `(batch, members · units)`.

    Raises:
        ValueError: if an argument is out of range, or the columns are not a multiple of the
            members.

    Example:

    >>> layer = MemberDense(3, members=2)
    >>> layer(np.ones((5, 8), "float32")).shape == (5, 6)
    True
    >>> layer.count_params()  # 2 · (4 · 3 weights and 3 biases)
    30

    Reference: Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation
    using Deep Ensembles", 2017, whose members it computes at once.
    """

    def __init__(
        self,
        units: int,
        *,
        members: int,
        kernel_initializer: Initializers = "glorot_uniform",
        bias_initializer: Initializers = "zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = check_int("units", units, minimum=1)
        self.members = check_int("members", members, minimum=1)
        self.kernel_initializer = EachMember.of(kernel_initializer, self.members)
        self.bias_initializer = EachMember.of(bias_initializer, self.members)
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape):
        width = split_width(input_shape[-1], self.members)
        shape = (self.members, width, self.units)
        self.kernel = self.add_weight(shape, self.kernel_initializer, name="kernel")
        self.bias = self.add_weight((self.members, self.units), self.bias_initializer, name="bias")
        self.built = True

    def call(self, inputs):
        members, width, units = self.kernel.shape
        x = ops.reshape(inputs, (-1, members, width))
        # Members first: so a batched product is a product after the other, of plain matrices.
        x = ops.matmul(ops.transpose(x, (1, 0, 2)), self.kernel)
        x = ops.transpose(x, (1, 0, 2)) + self.bias
        return ops.reshape(x, (-1, members * units))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.members * self.units)

    def get_config(self):
        serialized = keras.initializers.serialize
        return {
            **super().get_config(),
            "units": self.units,
            "members": self.members,
            "kernel_initializer": serialized(self.kernel_initializer),
            "bias_initializer": serialized(self.bias_initializer),
        }


def split_width(columns: int, members: int) -> int:
    """Units of each member."""
    if columns % members:
        reject("inputs", f"must have a multiple of {members} columns", columns)
    return columns // members


@keras.saving.register_keras_serializable("kerasmlp")
class EachMember(keras.initializers.Initializer):
    """Draws the weights of each member by an initialiser of its own.

    Args:
        initializers: One per member, of the shape without the first axis.

    Example:

    >>> zeros, ones = keras.initializers.Zeros(), keras.initializers.Ones()
    >>> keras.ops.convert_to_numpy(EachMember([zeros, ones])((2, 3)))
    array([[0., 0., 0.],
           [1., 1., 1.]], dtype=float32)
    """

    def __init__(self, initializers: Sequence):
        self.initializers = [keras.initializers.get(each) for each in initializers]

    @classmethod
    def of(cls, initializer: Initializers, members: int) -> keras.initializers.Initializer:
        """One for all members, or one of each of a list."""
        if not isinstance(initializer, list | tuple):
            initializer = keras.initializers.get(initializer)
            if isinstance(initializer, cls):
                initializer = initializer.initializers
            else:
                initializer = [_another(initializer, m) for m in range(members)]
        if len(initializer) != members:
            requirement = f"must be one, or one for each of {members} members"
            reject("initializer", requirement, initializer)
        return cls(initializer)

    def __call__(self, shape, dtype=None):
        drawn = [each(tuple(shape[1:]), dtype=dtype) for each in self.initializers]
        return ops.stack(drawn)

    def get_config(self):
        return {"initializers": [keras.initializers.serialize(i) for i in self.initializers]}


def _another(initializer: keras.initializers.Initializer, number: int):
    """The same kind with a seed of its own: one draws the same numbers at every call."""
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += number
    return initializer.__class__.from_config(config)
