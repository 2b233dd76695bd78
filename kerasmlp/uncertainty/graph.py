"""What a functional model computes, step by step, so that each step may be computed otherwise."""

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


def check_model(model: keras.Model) -> keras.Model:
    """Returns the model if it is functional or sequential, from one input to `(batch, n)`."""
    if len(getattr(model, "inputs", None) or ()) != 1:
        reject("model", "must be functional or sequential with one input", model.name)
    if not isinstance(model.output_shape, tuple) or len(model.output_shape) != 2:
        reject("model", "must have one input and one output of shape (batch, n)", model.name)
    return model
