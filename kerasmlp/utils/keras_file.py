"""Loads a `.keras` file after a look at what it holds, before Keras believes it."""

import io
import math
import os
import tempfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.utils import strict_json
from kerasmlp.utils.checks import InputError, reject_file

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_NAMES = {"metadata.json", _CONFIG, _WEIGHTS}
_CODE = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
_OF_OUR_MODELS = {
    "Functional", "InputLayer", "DTypePolicy",
    "Activation", "Add", "AveragePooling2D", "BatchNormalization", "Conv2D", "Dense", "Dropout",
    "Flatten", "GlobalAveragePooling2D", "MaxPooling2D", "Rescaling",
    "GlorotNormal", "GlorotUniform", "HeNormal", "Ones", "RandomNormal", "RandomUniform", "Zeros",
    "L1", "L2",
}  # fmt: skip
_MOST_CONFIG_BYTES = 1 << 23
_MOST_GROUPS = 100_000
_WHAT = "must be a saved model"


def load_keras_file(path: str | os.PathLike, content: bytes, *, of_a_run: bool = False):
    """Loads the model of a `.keras` file; the classes of its layers must be known to Keras.

    Args:
        path: Of the file, for errors.
        content: Of the file, as it was read once: what was looked at is what is loaded.
        of_a_run: Take no other layers of Keras than our models have.

    Returns:
        A `keras.Model`, not compiled.

    Raises:
        InputError: naming the file, if it is none, is larger inside than outside, or its
            weights are not finite.
    """
    import keras

    config, num_values = check_keras_file(path, content, of_a_run=of_a_run)
    try:
        # In a thread of its own: in this one, Keras would make up for the variables later.
        with ThreadPoolExecutor(1) as thread:
            size = thread.submit(_size_of, config).result()
        if size <= num_values:
            model = _load(content)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # whatever Keras meets in a file that is not its own
        reject_file(path, _WHAT, " ".join(str(error).split())[:120] or type(error).__name__)
    if size > num_values:
        came = f"a network of {size} numbers and weights of {num_values}"
        reject_file(path, _WHAT, came)
    for variable in model.variables:
        values = keras.ops.convert_to_numpy(variable.value)
        if values.dtype.kind not in "iub" and not np.isfinite(values.astype(np.float32)).all():
            reject_file(path, "must hold finite weights", f"NaN or infinity in {variable.path}")
        if variable.path.endswith("moving_variance") and (values < 0).any():
            reject_file(path, "must hold variances >= 0", f"less in {variable.path}")
    return model


def _load(content: bytes):
    """Keras takes a path: that of a copy, in a folder that nobody else can write in."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.keras"
        copy.write_bytes(content)
        return keras.saving.load_model(copy, compile=False, safe_mode=True)


def _size_of(config: dict) -> int:
    """How many numbers a model needs, built without memory for them: a file can name any size."""
    import keras

    config = {k: v for k, v in config.items() if k != "compile_config"}  # no optimizer in there
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        seed = "seed_generator_state"
        return sum(math.prod(v.shape) for v in model.variables if not v.path.endswith(seed))


def check_keras_file(
    path: str | os.PathLike, content: bytes, *, of_a_run: bool
) -> tuple[dict, int]:
    """Rejects a file whose sizes, names or configuration are not those of a model of ours.

    Keras writes its archives uncompressed: one that unpacks to more than it is long is not
    its work. The weights must lie in the file, uncompressed too.

    Returns:
        The configuration of the model, and how many numbers its weights are.

    Raises:
        InputError: naming the file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if set(entries) != _NAMES or len(archive.infolist()) != len(_NAMES):
                names = ", ".join(sorted(entries))[:100]
                reject_file(path, f"{_WHAT}, with {', '.join(sorted(_NAMES))}", names or "nothing")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
                reject_file(path, f"{_WHAT}, whose parts are not compressed", "one that is")
            declared, size = sum(e.file_size for e in entries.values()), len(content)
            if declared > size:
                reject_file(path, f"{_WHAT}, no larger than its {size} bytes", f"{declared} bytes")
            if entries[_CONFIG].file_size > _MOST_CONFIG_BYTES:
                came = f"{entries[_CONFIG].file_size} bytes"
                reject_file(path, f"{_WHAT}, described in {_MOST_CONFIG_BYTES} bytes", came)
            config = strict_json.loads(archive.read(_CONFIG).decode("utf-8"))
            weights = archive.read(_WEIGHTS)
    except InputError:
        raise
    except UnicodeDecodeError:
        reject_file(path, _WHAT, "a configuration that is no text")
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
        reject_file(path, _WHAT, "a damaged file, or one that cannot be read")
    except ValueError as error:
        reject_file(path, _WHAT, f"{error}")
    if not isinstance(config, dict):
        reject_file(path, _WHAT, f"the configuration of a {type(config).__name__}")
    _check_classes(path, config, of_a_run)
    return config, _count_values(path, weights)


def _check_classes(path: str | os.PathLike, config: Any, of_a_run: bool) -> None:
    """Rejects a configuration that names classes other than Keras' own and ours, or functions
    that are none of Keras' activations, initialisers and the like."""
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        if not isinstance(value, dict):
            continue
        left += value.values()
        if "class_name" not in value:
            continue
        module, registered = value.get("module"), value.get("registered_name")
        name, root = value["class_name"], str(module).split(".")[0]
        if name in _CODE:
            reject_file(path, f"{_WHAT} without code", f"a layer {name}")
        if f"{registered}".startswith("kerasmlp>") and root in ("kerasmlp", "None"):
            continue
        if module not in (None, "builtins") and root != "keras":
            reject_file(path, f"{_WHAT} of layers of Keras and kerasmlp", f"{module!r}"[:80])
        is_function = name == "function"
        if is_function != (module == "builtins"):  # Keras looks for others wherever they say
            reject_file(path, f"{_WHAT} of layers of Keras and kerasmlp", f"{module}.{name}"[:80])
        if of_a_run and not is_function and module is not None and name not in _OF_OUR_MODELS:
            requirement = f"{_WHAT} of the layers that models of kerasmlp have"
            reject_file(path, requirement, f"{module}.{name}"[:80])


def _count_values(path: str | os.PathLike, weights: bytes) -> int:
    """How many numbers an HDF5 file holds, all of them in itself and uncompressed."""
    import h5py

    groups = 0

    def values_in(group: h5py.Group) -> int:
        nonlocal groups
        groups += 1
        if groups > _MOST_GROUPS:  # by links, a few groups can hold each other without end
            raise ValueError(f"more than {_MOST_GROUPS} groups")
        count = 0
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"a link at {name!r}")
            item = group[name]
            if isinstance(item, h5py.Group):
                count += values_in(item)
                continue
            if (
                item.is_virtual
                or item.external
                or item.compression
                or item.dtype.kind not in "fiuV"
            ):
                raise ValueError(f"values that lie elsewhere or are none at {name!r}")
            if item.nbytes > len(weights):
                raise ValueError(f"{item.nbytes} bytes at {name!r} in a file of {len(weights)}")
            count += item.size
        return count

    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            return values_in(file)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, RecursionError) as error:
        came = " ".join(f"{error}".split())[:120]
        reject_file(path, f"{_WHAT} with its weights", came or "damaged ones")
