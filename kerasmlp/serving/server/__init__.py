"""The HTTP and gRPC service of `serve`."""
