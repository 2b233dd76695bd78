"""Keras layers: `keras.ops` only, on any Keras backend."""
