"""The HTTP service of `serve`."""
