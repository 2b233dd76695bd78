"""What a model that standardises its columns takes from the rows it is trained on."""

import keras
import numpy as np

from kerasmlp.layers.standardize import Standardize


def adapt_columns(model: keras.Model, rows: np.ndarray, *, like: Standardize | None = None) -> None:
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


def standardized_rows(model: keras.Model, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows as a model's `Standardize` gives them, but for its limit, and their `noise_units`;
    those of norm 1 as they are."""
    for layer in _standardizing(model):
        mean, scale = map(keras.ops.convert_to_numpy, (layer.mean, layer.scale))
        units = np.float32(len(scale) ** 0.5) * (scale > 0).astype(np.float32)
        return (rows - mean) * scale, units
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
