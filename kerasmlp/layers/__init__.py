"""Keras layers: `keras.ops` only, on any Keras backend."""

from kerasmlp.utils.lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(__name__, __file__)


def register() -> None:
    """Imports all layers, so that Keras finds those of a saved model by their names."""
    for name in __all__:
        __getattr__(name)
