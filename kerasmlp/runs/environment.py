"""What a report says of the machine that it was made on."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from kerasmlp import __version__
from kerasmlp.utils.tensorflow_import import keras_backend

_VERSIONS_OF = ("keras", "keras-tuner", "numpy", "h5py")


def environment() -> dict[str, Any]:
    """Versions and command line, for a report."""
    backend = keras_backend()
    installed = {name: _version(name) for name in (backend, *_VERSIONS_OF)}
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {
            "kerasmlp": __version__,
            "python": platform.python_version(),
            **{k: v for k, v in installed.items() if v},
        },
        "backend": backend,
        "cpu_count": os.cpu_count(),
    }


def of_backend() -> dict[str, str]:
    """For the settings of what is trained: under JAX, that it is; TensorFlow goes without saying.

    What one of them began the other would not end with the same bits.
    """
    backend = keras_backend()
    return {} if backend == "tensorflow" else {"backend": backend}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
