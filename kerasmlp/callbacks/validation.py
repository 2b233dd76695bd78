from __future__ import annotations

import weakref
from collections.abc import Callable

import keras
import numpy as np

_ROWS_PER_PASS = 8192
_ROWS_PER_COMPILED_PASS = 512


class Validation(keras.callbacks.Callback):
    """Measures the model on kept-back rows after every epoch, in the user's terms.

    Keras' own validation knows the loss of the head; a head of years is
    measured in age groups and years. It also keeps XLA from compiling the
    evaluation for each batch shape.

    Args:
        x: Rows, shape `(rows, width)`.
        measure: From outputs, an array, to a dict of numbers; each is logged
            as `val_<name>`.
        xla: As for `forward`.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse", jit_compile=False)
    >>> x = np.ones((4, 2), "float32")
    >>> validation = Validation(x, lambda outputs: {"mean": outputs.mean()})
    >>> history = model.fit(x, x[:, :1], verbose=0, callbacks=[validation])
    >>> sorted(history.history)
    ['loss', 'val_mean']
    """

    def __init__(
        self,
        x: np.ndarray,
        measure: Callable[[np.ndarray], dict[str, float]],
        *,
        xla: bool = False,
    ):
        super().__init__()
        self.x = x
        self.measure = measure
        self.xla = xla

    def on_epoch_end(self, epoch, logs=None):
        outputs = forward(self.model, self.x, xla=self.xla)
        finite = np.isfinite(outputs).all()
        measured = self.measure(outputs) if finite else {"loss": np.nan}  # see `Divergence`
        logs.update({f"val_{k}": float(v) for k, v in measured.items()})


def forward(model: keras.Model, x: np.ndarray, *, xla: bool = False) -> np.ndarray:
    """Outputs of a model as `predict` gives them.

    Args:
        model: To be asked.
        x: Rows, shape `(rows, width)`.
        xla: Compile the model for this, once, which pays for many rows or where runs share it.
            Without, nothing is traced: that takes longer than a pass over many thousands of rows.
    """
    if not xla:
        outputs = [model(part, training=False) for part in _parts(x, _ROWS_PER_PASS)]
        return np.concatenate([keras.ops.convert_to_numpy(output) for output in outputs])
    outputs = []
    for part in _parts(x, _ROWS_PER_COMPILED_PASS):
        # Of one shape, so that there is one compilation.
        filled = np.zeros((_ROWS_PER_COMPILED_PASS, *x.shape[1:]), x.dtype)
        filled[: len(part)] = part
        outputs.append(_compiled(model)(filled)[: len(part)])
    return np.concatenate(outputs)


def _parts(x: np.ndarray, rows: int) -> list[np.ndarray]:
    return [x[i : i + rows] for i in range(0, max(len(x), 1), rows)]


_functions: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _compiled(model: keras.Model):
    import tensorflow as tf

    if model not in _functions:
        known = weakref.ref(model)  # or the dictionary would keep it
        _functions[model] = tf.function(
            lambda x: known()(x, training=False), jit_compile=True, autograph=False
        )
    return _functions[model]
