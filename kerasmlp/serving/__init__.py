"""From a finished run to a server: the exported model, what serves it, and clients."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "GrpcClient": "kerasmlp.serving.clients.grpc_client",
    "RestClient": "kerasmlp.serving.clients.rest_client",
    "ServerError": "kerasmlp.serving.clients.client",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kerasmlp.serving' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
