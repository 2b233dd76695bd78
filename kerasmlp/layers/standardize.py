from __future__ import annotations

import keras
import numpy as np

from kerasmlp.utils.checks import check_positive, reject

_ROWS_PER_PASS = 8192  # bounds memory
_FEW_STEPS = 4 * float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)


@keras.saving.register_keras_serializable("kerasmlp")
class Standardize(keras.layers.Layer):
    """Brings each column to mean 0 and deviation 1, by the rows that it was shown.

    `y = clip((x - mean) · scale, -limit, limit)`

    In training, inference and sampling alike. `mean` and `scale` are weights which no
    training changes: 0 and 1 until `adapt`. They are read at each call, not when a step is
    traced as those of `keras.layers.Normalization`, so that a compiled step follows them.
    It computes in float32 under any policy.

    Args:
        limit: Of the outputs, in deviations: what lies farther out, such as 999 for unknown,
            counts as that far.

    Call arguments:
        inputs: Tensor `(batch, width)`.

    Input shape: `(batch, width)`.

    Output shape: the same.

    Raises:
        InputError: if `limit` is out of range.

    Example:

    >>> layer = Standardize()
    >>> layer.adapt(np.float32([[1, 500, 7], [3, 900, 7]]))
    >>> np.array(layer(np.float32([[1, 900, 8]]))).tolist()
    [[-1.0, 1.0, 0.0]]

    Reference: LeCun et al., "Efficient BackProp", 1998, section 4.3.
    """

    def __init__(self, *, limit: float = 10.0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.limit = check_positive("limit", limit)

    def build(self, input_shape):
        self.mean = self._add_column("mean", input_shape, "zeros")
        self.scale = self._add_column("scale", input_shape, "ones")

    def _add_column(self, name: str, input_shape, initializer: str):
        how = {"trainable": False, "autocast": False, "dtype": "float32"}
        return self.add_weight((input_shape[-1],), initializer, name=name, **how)

    def adapt(self, rows: np.ndarray) -> None:
        """Takes mean and deviation of each column, in double precision.

        A column that does not vary beyond the rounding of float32 is 0 from then on,
        whatever it holds later.

        Args:
            rows: Shape `(rows, width)`, finite.

        Raises:
            InputError: if there is no row, or a number is not finite.
        """
        rows = rows if hasattr(rows, "shape") else np.asarray(rows)
        if rows.ndim != 2 or not len(rows):
            reject("rows", "must be of shape (rows, width), one row at least", rows.shape)
        if not self.built:
            self.build(rows.shape)
        total = squares = largest = np.zeros(rows.shape[1])
        parts = [slice(k, k + _ROWS_PER_PASS) for k in range(0, len(rows), _ROWS_PER_PASS)]
        for part in (rows[k] for k in parts):  # those of a large store are read anew
            total = total + part.sum(axis=0, dtype=np.float64)
            largest = np.maximum(largest, np.abs(part).max(axis=0))
        if not np.isfinite(largest).all():
            reject("rows", "must be finite", "NaN or infinity")
        mean = total / len(rows)
        for part in (rows[k] for k in parts):
            squares = squares + np.square(part - mean).sum(axis=0)
        deviation = np.sqrt(squares / len(rows))
        varies = (deviation > _FEW_STEPS * largest) & (deviation > _TINY) & (deviation < 1 / _TINY)
        self.mean.assign(np.where(varies, mean, 0))
        self.scale.assign(np.where(varies, 1 / np.where(varies, deviation, 1), 0))

    def call(self, inputs):
        x = (keras.ops.cast(inputs, "float32") - self.mean) * self.scale
        return keras.ops.cast(keras.ops.clip(x, -self.limit, self.limit), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "limit": self.limit}
