"""Ensembles that are one network: the members by themselves."""

from __future__ import annotations

import keras

from kerasmlp.layers.gaussian_head import GaussianHead
from kerasmlp.layers.member_ends import MemberMean, ToMembers

ENDS = (MemberMean, GaussianHead)
"""Layers in which the answers of members become one."""


def members_of(model: keras.Model) -> int:
    """Of how many networks a model is made; 1 of one that knows nothing of members."""
    return max([1, *(layer.members for layer in model.layers if isinstance(layer, ToMembers))])


def members_apart(model: keras.Model, *, own_rows: bool = True) -> keras.Model:
    """The same layers as a model in which each member answers by itself.

    Args:
        model: A `ResidualMLP` with several members.
        own_rows: Each member gets rows of its own, as in training; False gives all the same.

    Returns:
        A model from `(batch, members, width)`, or `(batch, width)`, to
        `(batch, members, outputs)`, or a dict of these. It shares the weights.

    Example:

    >>> from kerasmlp import ResidualMLP
    >>> model = ResidualMLP(num_classes=3, width=8, members=2, seed=0)
    >>> apart = members_apart(model, own_rows=False)
    >>> x = np.ones((5, 8), "float32")
    >>> each = apart.predict(x, verbose=0)
    >>> each.shape, bool(np.allclose(each.mean(axis=1), model.predict(x, verbose=0)))
    ((5, 2, 3), True)
    """
    width = model.input_shape[-1]
    shape = (members_of(model), width) if own_rows else (width,)

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
