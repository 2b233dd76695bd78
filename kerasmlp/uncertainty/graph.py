"""What a functional model computes, step by step, so that each step may be computed otherwise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from kerasmlp.utils.checks import reject


class Step(NamedTuple):
    """A call in the graph of a model: of a layer, of `keras.ops`, or of a nested `Graph`."""

    operation: Any
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]
    arguments: tuple[tuple, dict]  # with the inputs in their places

    def arguments_with(self, tensors: list) -> tuple[tuple, dict]:
        """The arguments with such tensors as `inputs`."""
        known = {id(symbol): tensor for symbol, tensor in zip(self.inputs, tensors, strict=True)}
        return keras.tree.map_structure(lambda a: known.get(id(a), a), self.arguments)


class Graph:
    """The calls of a functional or sequential model in their order, on the same layers.

    Args:
        model: Nested models in it are graphs of their own.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="a")])
    >>> model.add(keras.layers.ReLU(name="b"))
    >>> [step.operation.name for step in Graph(model).steps]
    ['a', 'b']
    """

    def __init__(self, model: keras.Model):
        self.name = model.name
        self.steps: list[Step] = []
        # As it was before `compile`, which cloning would repeat, loss, optimiser and all.
        plain = keras.Model(model.inputs, model.outputs, name=model.name)
        copy = keras.models.clone_model(
            plain, clone_function=lambda layer: layer, call_function=self._record
        )
        self.inputs, self.outputs = copy.inputs, copy.outputs

    def _record(self, operation, *args, **kwargs):
        outputs = operation(*args, **kwargs)
        inputs = keras.tree.flatten((args, kwargs))
        inputs = [a for a in inputs if isinstance(a, keras.KerasTensor)]
        if isinstance(operation, keras.Model) and getattr(operation, "inputs", None):
            operation = Graph(operation)
        self.steps.append(Step(operation, inputs, keras.tree.flatten(outputs), (args, kwargs)))
        return outputs


def kept(model: keras.Model, kind: Callable[[keras.Model], Any]) -> Any:
    """What a class makes of a model, kept on the model as Keras keeps its `predict_function`.

    It is made anew where the model's layers have changed, and goes when the model goes.
    """
    state, name = _layers_state(check_model(model)), f"_{kind.__name__.lower()}"
    made = model.__dict__[name]() if name in model.__dict__ else (None, None)
    if made[0] != state:
        made = state, kind(model)
        model.__dict__[name] = lambda: made  # neither a layer that is tracked nor one to save
    return made[1]


def _layers_state(model: keras.Model) -> tuple:
    """What is compiled of a model hangs on this, beside its weights."""
    state = []
    for layer in model.layers:
        rates = [getattr(layer, name, None) for name in ("rate", "dropout_rate", "noise_shape")]
        state.append((id(layer), *rates, str(layer.dtype_policy)))
        if isinstance(layer, keras.Model):
            state.extend(_layers_state(layer))
    return tuple(state)


def check_model(model: keras.Model) -> keras.Model:
    """Returns the model if it is functional or sequential, from one input to `(batch, n)`, or to
    a dict of these."""
    if not isinstance(model, keras.Model):
        reject("model", "must be a keras.Model", type(model).__name__)
    if len(getattr(model, "inputs", None) or ()) != 1:
        reject("model", "must be functional or sequential with one input", model.name)
    single = len(model.outputs) == 1 and output_names(model) is None
    flat = all(len(output.shape) == 2 for output in model.outputs)
    if not flat or not (single or len(output_names(model) or ()) == len(model.outputs)):
        reject("model", "must have one input and one output of shape (batch, n)", model.name)
    return model


def output_names(model: keras.Model) -> list[str] | None:
    """The names of a model's outputs in the order of `model.outputs`; None of a single one."""
    if isinstance(model, keras.Sequential):
        return None
    return sorted(model.output) if isinstance(model.output, dict) else None
