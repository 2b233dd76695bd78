"""Keras callbacks for any compiled model."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "LayerOut":
        raise AttributeError(f"module 'kerasmlp.callbacks' has no attribute {name!r}")
    from kerasmlp.callbacks.layer_out import LayerOut

    return LayerOut
