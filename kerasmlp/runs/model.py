"""The model of a run: loaded, or a `.keras` file; in single precision; saved."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import atomic_path, what_is
from kerasmlp.utils.keras_file import load_keras_file

if TYPE_CHECKING:
    import keras


def load_model(path: str | os.PathLike) -> keras.Model:
    """Loads the model of a run folder, or a `.keras` file that holds our layers.

    Args:
        path: Run folder or file.

    Returns:
        Not compiled; that of a run folder is float32.

    Raises:
        InputError: if there is no finished run, no readable model, or one whose
            weights are not finite.
    """
    from kerasmlp.layers import register

    register()
    path, of_a_run = Path(path), Path(path).suffix != ".keras"
    if of_a_run:
        run = RunFolder(path)
        run.require_done()
        path = run / "model.keras"
        content = run.read_bytes(path.name)
    else:
        content = path.read_bytes() if path.is_file() else None
    if content is None:
        reject_file(path, "must be a saved model", what_is(path))
    return load_keras_file(path, content, of_a_run=of_a_run)


def in_float32(model: keras.Model, make: Callable[[], keras.Model] | None = None) -> keras.Model:
    """The same variables in a network of float32: a run loads alike on any machine.

    Args:
        model: Of any policy.
        make: The same network under float32, whatever its variables; None makes it of the
            layers of `model`.
    """
    import keras

    def rebuilt(layer):
        return layer.__class__.from_config(layer.get_config() | {"dtype": "float32"})

    plain = make() if make else keras.models.clone_model(model, clone_function=rebuilt)
    for variable, value in zip(plain.variables, model.variables, strict=True):
        variable.assign(value)
    return plain


def save_model(run: RunFolder, model: keras.Model) -> None:
    """Writes `model.keras` into a run folder."""
    with atomic_path(run / "model.keras") as temporary:
        model.save(temporary)
