"""What a command computes with: imported without its chatter and without what it does not need."""

import gc
import importlib
import importlib.util
import os
import sys

from kerasmlp.utils.checks import reject

# Keras and TensorFlow import these wherever they are installed, which takes longer than both.
_OPTIONAL = ("jax", "pandas", "sklearn", "tensorflow", "torch")


def import_keras() -> None:
    """Imports Keras on JAX where it runs on that, or `KERAS_BACKEND=jax`; else on TensorFlow.

    TensorFlow need not be installed for JAX.

    Raises:
        InputError: if the backend is not installed, or Keras runs on another one already.
    """
    if "keras" in sys.modules:
        require_backend()
    elif (told := os.environ.get("KERAS_BACKEND", "")) not in ("", "tensorflow", "jax"):
        reject("KERAS_BACKEND", "must be tensorflow or jax", told)
    if keras_backend() != "jax":
        import_tensorflow()
        return
    if importlib.util.find_spec("jax") is None:
        reject("KERAS_BACKEND", "must be a backend that is installed", "jax")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # of a GPU's memory
    _import_quietly("jax")


def keras_backend() -> str:
    """The backend that Keras runs on, or will where a command imports it.

    Example:

    >>> keras_backend() in ("tensorflow", "jax")
    True
    """
    if keras := sys.modules.get("keras"):
        return keras.backend.backend()
    return "jax" if os.environ.get("KERAS_BACKEND") == "jax" else "tensorflow"


def import_tensorflow() -> None:
    """Imports TensorFlow, its messages about CPU features unheard.

    Libraries that it would import only because they are there are hidden from
    it meanwhile: a command starts in half the time. Whatever backend Keras is told to take,
    a command that calls this takes this one.

    Raises:
        InputError: if it is not installed, or Keras runs on another one already.
    """
    if "keras" in sys.modules:
        require_tensorflow()
    if "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is None:
        requirement = "must be installed (without it trainings on embeddings and their "
        requirement += "answers run under KERAS_BACKEND=jax)"
        reject("tensorflow", requirement, None)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # or no worker finds any left
    _import_quietly("tensorflow")
    require_tensorflow()


def _import_quietly(backend: str) -> None:
    hidden = [name for name in _OPTIONAL if name != backend and name not in sys.modules]
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    sys.modules.update(dict.fromkeys(hidden))
    gc.disable()  # collecting among a million new objects finds nothing
    try:
        if backend == "jax":
            importlib.import_module("jax")
        else:
            importlib.import_module("tensorflow")
        fresh, keras = "keras" not in sys.modules, importlib.import_module("keras")
        if fresh and backend == "jax":
            # Whether there is a TensorFlow Keras finds out when it first saves, by importing it.
            keras.saving.serialize_keras_object(importlib.import_module("numpy").float32(0))
    finally:
        gc.freeze()
        gc.enable()
        for name in hidden:
            sys.modules.pop(name, None)
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def require_backend() -> None:
    """Says that trainings run on TensorFlow and JAX, where Keras runs on something else."""
    import keras

    if (backend := keras.backend.backend()) not in ("tensorflow", "jax"):
        requirement = "must be tensorflow or jax to train or to answer for a run"
        reject("KERAS_BACKEND", requirement, backend)


def require_tensorflow() -> None:
    """Says what runs on TensorFlow alone, where Keras runs on something else."""
    import keras

    if (backend := keras.backend.backend()) != "tensorflow":
        requirement = "must be tensorflow to export, serve, distil, train on images or embed them"
        reject("KERAS_BACKEND", requirement, backend)
