"""From a run folder to a SavedModel that TensorFlow Serving takes as it is."""

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasmlp.runs.mc_model import can_be_sampled, with_temperatures
from kerasmlp.runs.model import in_float32
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.reference import FILE
from kerasmlp.serving.export.description import describe
from kerasmlp.serving.export.served_heads import served_head
from kerasmlp.serving.export.server_files import SERVER_FILES, write_server_files
from kerasmlp.serving.export.signatures import Signatures
from kerasmlp.serving.export.version_folder import TEMPORARY, new_version
from kerasmlp.serving.export.warmup import PLACE, write_warmup
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import read_json, write_json

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def export_model(run_dir: str | os.PathLike, destination: str | os.PathLike) -> dict:
    """Writes the next version of a SavedModel, and what serves it beside it.

    The signatures are those of `Signatures`, float32; to load them takes
    TensorFlow alone. `assets/model.json` says what a client must know (see
    `describe`), `assets.extra/reference.json` by what `serve` notices moved rows.

    Args:
        run_dir: Finished run.
        destination: Folder of the versions; its name is that of the model.

    Returns:
        `version` (its folder), `signatures`, `calibrated` (whether the run had
        intervals and thresholds to give along), and `files`, a dict from each
        file beside it to whether it was written or kept.

    Raises:
        InputError: if there is no finished run, or the folder cannot be used:
            one that holds other things, or versions of another label.
    """
    predictors = Predictor.heads(run_dir)
    width = predictors[0].config["width"]
    description = describe(predictors)
    name = _name_of(Path(destination), description)
    module = _signatures(predictors)
    with new_version(destination) as (temporary, final), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.json"
        write_json(path, description)
        module.description = tf.saved_model.Asset(os.fspath(path))
        module.save(os.fspath(temporary))
        (temporary / PLACE).parent.mkdir()
        if (reference := predictors[0].reference) is not None:
            write_json((temporary / PLACE).with_name(FILE), reference.to_json())
        requests = {k: _warmup(k, width) for k in module.functions}
        for signature, inputs in requests.items():
            answers = module.functions[signature](**inputs)
            numbers = [v.numpy() for v in answers.values() if v.dtype.is_floating]
            if not all(np.isfinite(v).all() for v in numbers):
                came = "NaN or infinity: see its weights and temperatures"
                reject_file(run_dir, "must be a run with finite answers", came)
        write_warmup(temporary / PLACE, name, requests)
    files = write_server_files(destination, name)
    return {
        "version": str(final),
        "signatures": list(module.functions),
        "calibrated": all(p.calibration is not None for p in predictors),
        "files": files,
    }


def _signatures(predictors: Sequence[Predictor]) -> Signatures:
    model, mc_model, several = in_float32(predictors[0].model), None, len(predictors) > 1
    ordered = sorted(predictors, key=lambda p: p.label)  # as the outputs of the model
    by_name = {p.label if several else None: p for p in ordered}
    if can_be_sampled(model):
        calibrations = {name: p.calibration for name, p in by_name.items()}
        temperatures = {name: c.mc_temperature if c else 1.0 for name, c in calibrations.items()}
        mc_model = with_temperatures(model, temperatures)
    heads = {name: served_head(p, several=several) for name, p in by_name.items()}
    return Signatures(model, heads, mc_model=mc_model)


def _name_of(folder: Path, description: dict) -> str:
    """The name of the model, of a folder that is a place for versions of these labels."""
    path = os.path.abspath(folder)
    name = os.path.basename(path)
    if not _NAME.fullmatch(name):
        reject_file(folder, "must end in a name of letters, digits, `_`, `-` and `.`", repr(name))
    try:
        path.encode()
    except UnicodeEncodeError:
        reject_file(folder, "must be a path in UTF-8, as TensorFlow takes it", "other bytes")
    if not folder.is_dir() or (folder / "config.json").exists():
        return name  # of which `new_version` knows what to say
    names = sorted(p.name for p in folder.iterdir() if p.name not in (TEMPORARY, *SERVER_FILES))
    numbers = [int(name) for name in names if name.isdecimal()]
    if names and not numbers:
        reject_file(folder, "must be new, empty, or hold versions", f"a folder with {names[0]}")
    latest = folder / str(max(numbers, default=0)) / "assets" / "model.json"
    if latest.is_file():
        earlier = _answered(read_json(latest))
        if earlier != _answered(description):
            said = [", ".join(sorted(each)) for each in (_answered(description), earlier)]
            reject_file(folder, f"must hold versions of {said[0]}", f"a version of {said[1]}")
    return name


def _answered(description: Any) -> set[str]:
    """What a model answers, in words: versions of one model have the same outputs."""
    whole = description if isinstance(description, dict) else {}
    heads = whole.get("heads")
    if not isinstance(heads, dict):
        heads = {str(whole.get("label")): whole}
    numbers = {name for name, head in heads.items() if isinstance(head, dict) and "unit" in head}
    return {f"the number {name}" if name in numbers else name for name in heads}


def _warmup(signature: str, width: int) -> dict[str, np.ndarray]:
    # One value per row, not one for all: a server that batches takes no scalars.
    inputs = {"embedding": np.full((1, width), width**-0.5, np.float32)}
    if signature == "serve_mc":
        inputs |= {"num_samples": np.array([64], np.int32), "seed": np.array([0], np.int64)}
    return inputs
