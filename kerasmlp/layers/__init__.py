"""Keras layers: `keras.ops` only, on any Keras backend."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "BatchNorm": "batch_norm",
    "DownsampleBlock": "downsample_block",
    "ICLayer": "ic_layer",
    "RandomErasing": "random_erasing",
    "ResidualBlock": "residual_block",
}


def register() -> None:
    """Imports all layers, so that Keras finds those of a saved model by their names."""
    for module in _HOME.values():
        importlib.import_module(f"kerasmlp.layers.{module}")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kerasmlp.layers' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kerasmlp.layers.{_HOME[name]}"), name)
