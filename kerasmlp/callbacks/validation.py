from collections.abc import Callable

import keras
import numpy as np

from kerasmlp.utils.compiled import answers_to_rows

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
        xla: As for `forward`.
        of: The model that is measured, on layers of the one that is trained; None takes that.

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
        of: keras.Model | None = None,
    ):
        super().__init__()
        self.of = of
        self.x = x
        self.measure = measure
        self.xla = xla

    def on_epoch_end(self, epoch, logs=None):
        outputs = forward(self.of or self.model, self.x, xla=self.xla)
        finite = np.isfinite(outputs).all()
        measured = self.measure(outputs) if finite else {"loss": np.nan}  # see `Divergence`
        logs.update({f"val_{k}": float(v) for k, v in measured.items()})


def forward(model: keras.Model, x: np.ndarray, *, xla: bool = False) -> np.ndarray:
    """Outputs of a model as `predict` gives them.

    Args:
        model: To be asked.
        x: Rows, shape `(rows, width)`.
        xla: By its `predict_on_batch`, which Keras compiles once if the model has
            `jit_compile`: that pays for many rows or where runs share the model. Without,
            nothing is traced: that takes longer than a pass over many thousands of rows.
            JAX always compiles.
    """
    if xla or keras.backend.backend() == "jax":
        return answers_to_rows(model, x)
    outputs = []
    for start in range(0, max(len(x), 1), _ROWS_PER_PASS):
        part = x[start : start + _ROWS_PER_PASS]
        outputs.append(keras.ops.convert_to_numpy(model(part, training=False)))
    return np.concatenate(outputs)
