"""What a model that standardises its columns takes from the rows it is trained on."""

from typing import Any

import keras
import numpy as np

from kerasmlp.data.stores.streamed_rows import AnyRows
from kerasmlp.layers.standardize import Standardize


def adapt_columns(model: keras.Model, rows: AnyRows, *, like: Standardize | None = None) -> None:
    """Shows the rows that are trained on to the model's `Standardize`, where it has one.

    `like` is that of another model, which it becomes instead.
    """
    for layer in _standardizing(model):
        if like is None:
            layer.adapt(rows)
        else:
            layer.set_weights(like.get_weights())


def noise_units(model: keras.Model) -> np.ndarray | None:
    """In what the noise on each column is drawn; None of a model that takes rows of norm 1.

    They make the noise as long, against a row in deviations, as that on embeddings is
    against their norm.
    """
    for layer in _standardizing(model):
        scale = keras.ops.convert_to_numpy(layer.scale)
        units = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        return np.float32(len(scale) ** 0.5) * units
    return None


class StandardRows:
    """Rows that are brought to one scale as they are asked for, but for any limit.

    Args:
        rows: `(rows, width)`, or streamed ones.
        mean: Of each column.
        scale: Of each column, one over its deviation.
    """

    def __init__(self, rows: AnyRows, mean: np.ndarray, scale: np.ndarray):
        self.shape, self.in_memory = rows.shape, getattr(rows, "in_memory", True)
        self.parts = getattr(rows, "parts", ())
        self._rows, self._mean, self._scale = rows, mean, scale

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return (self._rows[rows] - self._mean) * self._scale


def standardized_rows(
    model: keras.Model, rows: AnyRows
) -> tuple[AnyRows | StandardRows, np.ndarray | None]:
    """Rows as a model's `Standardize` gives them, and their `noise_units`; those of norm 1 as
    they are."""
    for layer in _standardizing(model):
        mean, scale = map(keras.ops.convert_to_numpy, (layer.mean, layer.scale))
        units = np.float32(len(scale) ** 0.5) * (scale > 0).astype(np.float32)
        return StandardRows(rows, mean, scale), units
    return rows, None


def describe_columns(model: keras.Model) -> dict[str, int] | None:
    """For a report: how many columns are standardised, how many of them never vary, and how
    wide the first stage is."""
    for layer in _standardizing(model):
        scale = keras.ops.convert_to_numpy(layer.scale)
        wide = [k.units for k in model.layers if k.name == "projection"] or [len(scale)]
        return {
            "standardized": len(scale),
            "constant": int((scale == 0).sum()),
            "hidden_width": wide[0],
        }
    return None


def _standardizing(model: keras.Model) -> list[Standardize]:
    return [layer for layer in model.layers if isinstance(layer, Standardize)]
