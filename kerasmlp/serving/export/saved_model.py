"""From a run folder to a SavedModel that TensorFlow Serving takes as it is."""

import os
import re
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasmlp import __version__
from kerasmlp.runs.mc_model import has_dropout, with_temperatures
from kerasmlp.runs.model import in_float32
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.risk import abstention_of
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.serving.export.server_files import SERVER_FILES, write_server_files
from kerasmlp.serving.export.signatures import MAX_SAMPLES, Signatures
from kerasmlp.serving.export.version_folder import TEMPORARY, new_version
from kerasmlp.serving.export.warmup import PLACE, write_warmup
from kerasmlp.uncertainty.abstention import Abstention
from kerasmlp.utils.checks import is_number, reject_file
from kerasmlp.utils.files import read_json, sha256_file, write_json

FORMAT = "kerasmlp.export"
RISKS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of wrong answers for which an export names the threshold to abstain above."""

WITHIN_YEARS = (3, 5, 10)
"""Tolerances for which it names them too."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def export_model(run_dir: str | os.PathLike, destination: str | os.PathLike) -> dict:
    """Writes the next version of a SavedModel, and what serves it beside it.

    The signatures are those of `Signatures`, float32; to load them takes
    TensorFlow alone. `assets/model.json` says what a client must know (see
    `describe`).

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
    predictor = Predictor(run_dir)
    name = _name_of(Path(destination), predictor.name)
    module = _signatures(predictor)
    with new_version(destination) as (temporary, final), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.json"
        write_json(path, describe(predictor))
        module.description = tf.saved_model.Asset(os.fspath(path))
        module.save(os.fspath(temporary))
        (temporary / PLACE).parent.mkdir()
        requests = {k: _warmup(k, predictor.config["width"]) for k in module.functions}
        for signature, inputs in requests.items():
            if not module.functions[signature](**inputs)["label"][0]:
                came = "NaN or infinity: see its weights and temperatures"
                reject_file(run_dir, "must be a run with finite answers", came)
        write_warmup(temporary / PLACE, name, requests)
    files = write_server_files(destination, name)
    return {
        "version": str(final),
        "signatures": list(module.functions),
        "calibrated": predictor.calibration is not None,
        "files": files,
    }


def _signatures(predictor: Predictor) -> Signatures:
    calibration, model, mc_model = predictor.calibration, in_float32(predictor.model), None
    if has_dropout(model):
        temperature = calibration.mc_temperature if calibration else 1.0
        mc_model = with_temperatures(model, {None: temperature})
    offsets_years = calibration.offsets_years.get("mc_mean") if calibration else None
    return Signatures(model, predictor.target, offsets_years=offsets_years, mc_model=mc_model)


def _name_of(folder: Path, label: str) -> str:
    """The name of the model, of a folder that is a place for versions of this label."""
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
        description = read_json(latest)
        before = description.get("label") if isinstance(description, dict) else None
        if before != label:
            reject_file(folder, f"must hold versions of {label}", f"a version of {before}")
    return name


def describe(predictor: Predictor) -> dict:
    """What a client must know to ask an exported model and to read its answers.

    Returns:
        `width`, `normalized`, `embedder` and `embedder_sha256` of the
        embeddings; `class_names` of the probabilities, `class_age_years`,
        `label_names` and, of each class, the number of its label,
        `class_to_label`; `risk_thresholds_nats`: share of wrong answers to the
        entropy of the labels (natural logarithm, of the MC mean) above which
        to abstain, null where none can be promised; of ages also
        `within_years_thresholds_nats`: years that an answer may be off, to the
        same of the `predictive_entropy_nats`; the temperatures and the
        offsets of intervals that are in the model already; and where it
        comes from.
    """
    target, config, calibration = predictor.target, predictor.config, predictor.calibration
    regrouped = target.measured(np.eye(target.num_classes)).argmax(axis=1)
    thresholds = [
        _thresholds(abstention_of(calibration, target, config["target"]["classes"], years)[0])
        for years in (None, *(WITHIN_YEARS if target.is_age else ()))
    ]
    run = RunFolder(predictor.path)
    temperature = run.report().get("temperature")
    if not is_number(temperature) or not np.isfinite(temperature):
        reject_file(run / "report.json", "must hold a temperature", f"{temperature!r}")
    return {
        "format": FORMAT,
        "label": predictor.name,
        "width": config["width"],
        "normalized": config["normalized"],
        "embedder": config["embedder"],
        "embedder_sha256": config["embedder_sha256"],
        "class_names": list(target.class_names),
        "class_age_years": target.head_ages.centers.tolist() if target.is_age else None,
        "label_names": list(target.measured_names),
        "class_to_label": regrouped.tolist(),
        "max_samples": MAX_SAMPLES if has_dropout(predictor.model) else 0,
        "temperature": temperature,
        "mc_temperature": calibration.mc_temperature if calibration else 1.0,
        "interval_offsets_years": dict(calibration.offsets_years) if calibration else {},
        "risk_thresholds_nats": thresholds[0],
        "within_years_thresholds_nats": dict(
            zip(map(str, WITHIN_YEARS), thresholds[1:], strict=False)
        ),
        "risk_min_samples": calibration.num_samples if calibration else 0,
        "source": {
            "model_sha256": sha256_file(run / "model.keras"),
            "data_digest": config["data_digest"],
            "versions": {"kerasmlp": __version__, "tensorflow": tf.__version__},
        },
    }


def _thresholds(abstention: Abstention | None) -> dict[str, float | None]:
    return {str(r): abstention.threshold(r) for r in RISKS} if abstention else {}


def _warmup(signature: str, width: int) -> dict[str, np.ndarray]:
    # One value per row, not one for all: a server that batches takes no scalars.
    inputs = {"embedding": np.full((1, width), width**-0.5, np.float32)}
    if signature == "serve_mc":
        inputs |= {"num_samples": np.array([64], np.int32), "seed": np.array([0], np.int64)}
    return inputs
