"""Names of a package that load when they are first used, so that importing it costs nothing."""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_IMPORT = re.compile(r"^from (\S+) import (\w+) as (\w+)$", re.MULTILINE)


def lazy_names(package: str, file: str) -> tuple[list[str], Callable, Callable]:
    """Returns `__all__`, `__getattr__` and `__dir__` of a package.

    The names stand once, in the stub beside the package (`__init__.pyi`), which
    editors and type checkers read: `from kerasmlp.models.age_cnn import AgeCNN as AgeCNN`.

    Example:

    >>> import kerasmlp.callbacks
    >>> names, get, listed = lazy_names("kerasmlp.callbacks", kerasmlp.callbacks.__file__)
    >>> names, "LayerOut" in listed(), get("LayerOut").__name__
    (['LayerOut'], True, 'LayerOut')
    """
    stub = Path(file).with_suffix(".pyi").read_text(encoding="utf-8")
    homes = {name: (module, own) for module, own, name in _IMPORT.findall(stub)}

    def get(name: str) -> Any:
        if name not in homes:
            if (Path(file).parent / name / "__init__.py").is_file():
                return importlib.import_module(f"{package}.{name}")
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, own = homes[name]
        return getattr(importlib.import_module(module), own)

    return sorted(homes), get, lambda: sorted({*homes, *vars(sys.modules[package])})
