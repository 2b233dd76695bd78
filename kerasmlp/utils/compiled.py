"""What a model answers by compiled code, in passes of one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

_ROWS_PER_PASS = 512
_NAME = "_compiled_answers"


def answers(model: keras.Model, x: Any) -> Any:
    """What `predict_on_batch` answers, for any number of threads at once.

    Under JAX Keras' own hands the weights over to the compiled code and takes them back:
    another thread finds none meanwhile. Here they are only read.

    Args:
        model: Keeps what is compiled of it, by shapes.
        x: What it takes.

    Example:

    >>> import keras
    >>> ones = keras.layers.Dense(1, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((2,)), ones])
    >>> answers(model, np.ones((1, 2), "float32"))
    array([[2.]], dtype=float32)
    """
    import keras

    if keras.backend.backend() != "jax":
        return model.predict_on_batch(x)
    variables = model.trainable_variables, model.non_trainable_variables
    weights = [[variable.value for variable in some] for some in variables]
    return keras.tree.map_structure(np.array, _compiled(model)(*weights, x))


def _compiled(model: keras.Model) -> Callable:
    if _NAME not in model.__dict__:
        import jax

        def of_weights(learned, others, x):
            return model.stateless_call(learned, others, x)[0]

        model.__dict__[_NAME] = jax.jit(of_weights)  # nothing that Keras tracks
    return model.__dict__[_NAME]


def answers_to_rows(model: keras.Model, x: np.ndarray) -> Any:
    """As `answers`, in passes of one shape: there is one compilation for any number of rows.

    Args:
        model: As of `answers`.
        x: Rows.
    """
    import keras

    def first(rows: int) -> Callable:
        return lambda found: found[:rows]

    parts = []
    for start in range(0, max(len(x), 1), _ROWS_PER_PASS):
        part = x[start : start + _ROWS_PER_PASS]
        filled = np.zeros((_ROWS_PER_PASS, *x.shape[1:]), x.dtype)
        filled[: len(part)] = part
        parts.append(keras.tree.map_structure(first(len(part)), answers(model, filled)))
    return keras.tree.map_structure(lambda *each: np.concatenate(each), *parts)
