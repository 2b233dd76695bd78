from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

_ROWS_PER_PASS = 8192


class Validation(keras.callbacks.Callback):
    """Measures the model on kept-back rows after every epoch, in the user's terms.

    Keras' own validation knows the loss of the head; a head of years is
    measured in age groups and years. It also keeps XLA from compiling the
    evaluation for each batch shape.

    Args:
        x: Rows, shape `(rows, width)`.
        measure: From outputs, an array, to a dict of numbers; each is logged
            as `val_<name>`.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse", jit_compile=False)
    >>> x = np.ones((4, 2), "float32")
    >>> validation = Validation(x, lambda outputs: {"mean": outputs.mean()})
    >>> history = model.fit(x, x[:, :1], verbose=0, callbacks=[validation])
    >>> sorted(history.history)
    ['loss', 'val_mean']
    """

    def __init__(self, x: np.ndarray, measure: Callable[[np.ndarray], dict[str, float]]):
        super().__init__()
        self.x = x
        self.measure = measure

    def on_epoch_end(self, epoch, logs=None):
        measured = self.measure(forward(self.model, self.x))
        logs.update({f"val_{k}": float(v) for k, v in measured.items()})


def forward(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Outputs of a model as `predict` gives them, untraced: for a single look at some rows.

    Tracing takes longer than a pass over many thousands of rows.
    """
    parts = [x[i : i + _ROWS_PER_PASS] for i in range(0, max(len(x), 1), _ROWS_PER_PASS)]
    outputs = [keras.ops.convert_to_numpy(model(part, training=False)) for part in parts]
    return np.concatenate(outputs)
