"""TensorFlow for a command: imported without its chatter and without what it does not need."""

import gc
import importlib
import os
import sys

from kerasmlp.utils.checks import reject

# Keras and TensorFlow import these wherever they are installed, which takes longer than both.
_OPTIONAL = ("jax", "pandas", "sklearn", "torch")


def import_tensorflow() -> None:
    """Imports TensorFlow, its messages about CPU features unheard.

    Libraries that it would import only because they are there are hidden from
    it meanwhile: a command starts in half the time. Whatever backend Keras is told to take,
    a command takes this one.

    Raises:
        InputError: if Keras runs on another one already.
    """
    if "keras" in sys.modules:
        require_tensorflow()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # or no worker finds any left
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    sys.modules.update(dict.fromkeys(hidden))
    gc.disable()  # collecting among a million new objects finds nothing
    try:
        importlib.import_module("tensorflow")
        importlib.import_module("keras")
    finally:
        gc.freeze()
        gc.enable()
        for name in hidden:
            sys.modules.pop(name, None)
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
    require_tensorflow()


def require_tensorflow() -> None:
    """Says that trainings run on TensorFlow alone, where Keras runs on something else."""
    import keras

    if (backend := keras.backend.backend()) != "tensorflow":
        reject("KERAS_BACKEND", "must be tensorflow to train or to answer for a run", backend)
