"""A run's deterministic model as one new file of another format."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras

from kerasmlp.runs.model import in_float32
from kerasmlp.runs.predictor import Predictor
from kerasmlp.serving.export.description import describe
from kerasmlp.serving.export.output_names import output_names
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import atomic_path, require_file_place, what_is


@dataclass(frozen=True)
class ModelFile:
    """What goes into the file.

    Attributes:
        model: In float32, from `embedding` to a dict of its outputs: `probabilities`, or
            `number` and `std`; of several heads under the names of `output_names`.
        description: As of `describe`, in JSON.
        temporary: To be written.
    """

    model: keras.Model
    description: str
    temporary: Path


@contextlib.contextmanager
def new_model_file(
    run_dir: str | os.PathLike, path: str | os.PathLike, suffix: str
) -> Iterator[ModelFile]:
    """Yields a run's model and a temporary file that becomes `path`.

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
    predictors = Predictor.heads(run_dir)
    description = json.dumps(describe(predictors), ensure_ascii=False)
    model = in_float32(predictors[0].model)
    outputs = {}
    ordered = sorted(predictors, key=lambda p: p.label)
    for predictor, output in zip(ordered, model.outputs, strict=True):
        names = output_names(predictor.target, several=len(predictors) > 1)
        if predictor.target.is_number:
            outputs |= {names["number"]: output[:, 0], names["std"]: output[:, 1]}
        else:
            outputs[names["probabilities"]] = output
    named = keras.Model(model.input, outputs)
    with atomic_path(path, replace=False, private=False) as temporary:
        yield ModelFile(named, description, temporary)
