"""Names of a package that load when they are first used, so that importing it costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[list[str], Callable, Callable]:
    """Returns `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        package: Its `__name__`.
        homes: The module below it that holds each name.

    Example:

    >>> names, get, listed = lazy_names("json", {"JSONDecoder": "decoder"})
    >>> names, listed(), get("JSONDecoder").__name__
    (['JSONDecoder'], ['JSONDecoder'], 'JSONDecoder')
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return sorted(homes), get, lambda: sorted(homes)
