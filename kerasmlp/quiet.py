"""TensorFlow without the lines it prints, below Python, about CPU features."""

from __future__ import annotations

import importlib
import os
import sys


def import_tensorflow() -> None:
    """Imports TensorFlow with the standard error stream closed for that time."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        importlib.import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
