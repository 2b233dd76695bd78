"""Clients of TensorFlow Serving and of `serve`."""
