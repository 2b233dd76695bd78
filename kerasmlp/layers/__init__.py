"""Keras layers: `keras.ops` only, on any Keras backend."""

import importlib

from kerasmlp.utils.lazy import lazy_names

_HOME = {
    "BatchNorm": "batch_norm",
    "DownsampleBlock": "downsample_block",
    "ICLayer": "ic_layer",
    "RandomErasing": "random_erasing",
    "ResidualBlock": "residual_block",
}

__all__, __getattr__, __dir__ = lazy_names(__name__, _HOME)


def register() -> None:
    """Imports all layers, so that Keras finds those of a saved model by their names."""
    for module in _HOME.values():
        importlib.import_module(f"kerasmlp.layers.{module}")
