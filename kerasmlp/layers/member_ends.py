"""Where the members of an ensemble begin and end: one row for all, and the mean of answers."""

import keras
from keras import ops

from kerasmlp.layers.member_dense import split_width
from kerasmlp.utils.checks import check_int, reject


@keras.saving.register_keras_serializable("kerasmlp")
class ToMembers(keras.layers.Layer):
    """Gives each member its rows: all the same, or, in training, each its own.

    Args:
        members: Number of networks.

    Call arguments:
        inputs: Tensor `(batch, width)`, rows for all members; or `(batch, members, width)`.

    Output shape: `(batch, members · width)`.

    Example:

    >>> keras.ops.convert_to_numpy(ToMembers(2)(np.float32([[1, 2]])))
    array([[1., 2., 1., 2.]], dtype=float32)
    """

    def __init__(self, members: int, **kwargs):
        super().__init__(**kwargs)
        self.members = check_int("members", members, minimum=1)

    def call(self, inputs):
        if len(inputs.shape) == 2:
            return ops.tile(inputs, (1, self.members))
        if inputs.shape[1] != self.members:
            came = tuple(inputs.shape)
            reject("inputs", f"must be of shape (batch, {self.members}, width)", came)
        return ops.reshape(inputs, (-1, self.members * inputs.shape[-1]))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.members * input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "members": self.members}


@keras.saving.register_keras_serializable("kerasmlp")
class MemberMean(keras.layers.Layer):
    """The mean of what the members answer.

    Args:
        members: Number of networks.
        activation: Of each member, before the mean: `"softmax"`, or None.

    Call arguments:
        inputs: Tensor `(batch, members · units)`.
        apart: True gives the answer of each member, `(batch, members, units)`.

    Output shape: `(batch, units)`.

    Example:

    >>> logits = np.log(np.float32([[0.9, 0.1, 0.5, 0.5]]))
    >>> layer = MemberMean(2, activation="softmax")
    >>> keras.ops.convert_to_numpy(layer(logits)).round(4)
    array([[0.7, 0.3]], dtype=float32)
    """

    def __init__(self, members: int, *, activation: str | None = None, **kwargs):
        super().__init__(**kwargs)
        self.members = check_int("members", members, minimum=1)
        self.activation = keras.activations.get(activation)

    def call(self, inputs, apart=False):
        units = split_width(inputs.shape[-1], self.members)
        each = self.activation(ops.reshape(inputs, (-1, self.members, units)))
        return each if apart else ops.mean(each, axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], split_width(input_shape[-1], self.members))

    def compute_output_spec(self, inputs, apart=False):
        rows, units = self.compute_output_shape(inputs.shape)
        shape = (rows, self.members, units) if apart else (rows, units)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        own = {"members": self.members, "activation": activation}
        return {**super().get_config(), **own}
