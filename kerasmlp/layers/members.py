"""Ensembles that are one network: the members by themselves."""

from __future__ import annotations

import keras

from kerasmlp.layers.gaussian_head import GaussianHead
from kerasmlp.layers.member_ends import MemberMean, ToMembers
from kerasmlp.utils.checks import reject

ENDS = (MemberMean, GaussianHead)
"""Layers in which the answers of members become one."""


def members_of(model: keras.Model) -> int:
    """Of how many networks a model is made; 1 of one that knows nothing of members."""
    found = [members_of(layer) for layer in model.layers if isinstance(layer, keras.Model)]
    known = (layer for layer in model.layers if isinstance(layer, (ToMembers, *ENDS)))
    return max([1, *found, *(layer.members for layer in known)])


def ends_in_members(output: keras.KerasTensor) -> bool:
    """Whether an output is a mean over members, of a nested model too."""
    last, _, index = output._keras_history
    if isinstance(last, keras.Model):
        return ends_in_members(last.outputs[index])
    return isinstance(last, ENDS) and last.members > 1


def members_apart(model: keras.Model, *, own_rows: bool = True) -> keras.Model:
    """The same layers as a model in which each member answers by itself.

    Args:
        model: A `ResidualMLP` with several members.
        own_rows: Each member gets rows of its own, as in training; False gives all the same.

    Returns:
        A model from `(batch, members, width)`, or `(batch, width)`, to
        `(batch, members, outputs)`, or a dict of these. It shares the weights.

    Raises:
        InputError: if the model is one network.

    Example:

    >>> from kerasmlp import ResidualMLP
    >>> model = ResidualMLP(num_classes=3, width=8, members=2, seed=0)
    >>> apart = members_apart(model, own_rows=False)
    >>> x = np.ones((5, 8), "float32")
    >>> each = apart.predict(x, verbose=0)
    >>> each.shape, bool(np.allclose(each.mean(axis=1), model.predict(x, verbose=0)))
    ((5, 2, 3), True)
    """
    members, width = members_of(model), model.input_shape[-1]
    if members == 1:
        reject("model", "must have several members", model.name)
    shape = (members, width) if own_rows else (width,)

    def called(layer, *args, **kwargs):
        if isinstance(layer, ENDS):
            kwargs["apart"] = True
        return layer(*args, **kwargs)

    plain = keras.Model(model.inputs, model.outputs, name=model.name)
    copy = keras.models.clone_model(
        plain,
        input_tensors=[keras.Input(shape, name="embedding")],
        clone_function=lambda layer: layer,
        call_function=called,
    )
    names = model.output if isinstance(model.output, dict) else None
    outputs = copy.outputs
    if names is not None:
        outputs = dict(zip(sorted(names), outputs, strict=True))
    return keras.Model(copy.inputs[0], outputs if names else outputs[0], name=model.name)
