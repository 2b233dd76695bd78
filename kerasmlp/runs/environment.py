"""What a report says of the machine that it was made on."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from kerasmlp import __version__

_VERSIONS_OF = ("tensorflow", "keras", "keras-tuner", "numpy", "h5py")


def environment() -> dict[str, Any]:
    """Versions and command line, for a report."""
    installed = {name: _version(name) for name in _VERSIONS_OF}
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {
            "kerasmlp": __version__,
            "python": platform.python_version(),
            **{k: v for k, v in installed.items() if v},
        },
        "cpu_count": os.cpu_count(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
