"""A run's deterministic model as one new file of another format."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import keras

from kerasmlp.runs.model import in_float32
from kerasmlp.runs.predictor import Predictor
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import atomic_path, require_file_place, what_is


@contextlib.contextmanager
def new_model_file(
    run_dir: str | os.PathLike, path: str | os.PathLike, suffix: str
) -> Iterator[tuple[Predictor, keras.Model, Path]]:
    """Yields a run's predictor, its model in float32, and a temporary file that becomes `path`.

    Raises:
        InputError: if there is no finished run, the file exists, has another
            suffix, or cannot be written.
    """
    path = Path(path)
    if path.suffix != suffix:
        reject_file(path, f"must end in {suffix}", f"suffix {path.suffix!r}")
    if path.exists():
        reject_file(path, "must not exist yet", what_is(path))
    require_file_place(path)
    predictor = Predictor(run_dir)
    with atomic_path(path, replace=False, private=False) as temporary:
        yield predictor, in_float32(predictor.model), temporary
