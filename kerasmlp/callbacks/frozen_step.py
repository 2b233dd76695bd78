import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class WeightLayer:
    """A layer that can be frozen: its path in the model and the variables that then rest."""

    name: str
    variables: tuple[keras.Variable, ...]

    @property
    def size(self) -> int:
        return sum(math.prod(v.shape) for v in self.variables)


class FrozenStep:
    """A training step of a model in which some variables rest, traced when it first runs.

    It stands in for `model.train_function` for one call: afterwards, and when
    the call fails, the model has its own step again and nothing is frozen.

    Args:
        model: Compiled, with its own step made.
        variables: Get no gradient, and neither does anything below them alone.
    """

    def __init__(self, model: keras.Model, variables: Iterable[keras.Variable]):
        self._model = model
        self._variables = list(variables)
        self._whole = model.train_function
        model.make_train_function(force=True)
        self._function, model.train_function = model.train_function, self._whole

    def install(self) -> None:
        """Makes the next step of the model this one."""
        self._model.train_function = self

    def __call__(self, iterator: Any) -> Any:
        try:
            _set_trainable(self._variables, False)
            return self._function(iterator)
        finally:
            _set_trainable(self._variables, True)
            self._model.train_function = self._whole


def weight_layers(model: keras.Model) -> list[WeightLayer]:
    """Returns the layers of a model that hold a trainable kernel, inner ones too, input first.

    Whatever has vectors alone, such as batch norm, goes with the layer before it
    (the first with the one after it).

    Example:

    >>> layers = [keras.layers.Dense(2, name="a"), keras.layers.BatchNormalization(name="b")]
    >>> model = keras.Sequential([keras.Input((3,)), *layers])
    >>> [(layer.name, layer.size) for layer in weight_layers(model)]
    [('a', 12)]
    """
    groups: list[tuple[str, dict[str, keras.Variable]]] = []
    for variable in model.trainable_variables:
        path, _, name = variable.path.rpartition("/")
        # Towers that were built apart may have layers of one path, one after the other.
        if not groups or groups[-1][0] != path or name in groups[-1][1]:
            groups.append((path, {}))
        groups[-1][1][name] = variable
    found: list[tuple[str, list[keras.Variable]]] = []
    waiting: list[keras.Variable] = []
    for path, group in groups:
        variables = list(group.values())
        if any(len(v.shape) > 1 for v in variables):
            found.append((path, waiting + variables))
            waiting = []
        else:
            (found[-1][1] if found else waiting).extend(variables)
    prefix = f"{model.name}/"
    return [WeightLayer(path.removeprefix(prefix), tuple(vs)) for path, vs in found]


def _set_trainable(variables: list[keras.Variable], trainable: bool) -> None:
    for variable in variables:
        variable.trainable = trainable
        # Keras leaves the gradient out of the update; TensorFlow, which watches by a flag
        # of its own and without a public switch, would still trace it and all that leads there.
        if hasattr(variable.value, "_trainable"):
            variable.value._trainable = trainable
