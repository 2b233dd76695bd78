"""What a client must know of an exported model: `assets/model.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import tensorflow as tf

from kerasmlp import __version__
from kerasmlp.runs.calibration import RunCalibration
from kerasmlp.runs.card_facts import card_facts
from kerasmlp.runs.conformal_groups import SET
from kerasmlp.runs.mc_model import can_be_sampled
from kerasmlp.runs.number_calibration import NumberCalibration
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.risk import abstention_of
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.serving.export.output_names import check_names, output_names
from kerasmlp.serving.export.signatures import MAX_SAMPLES
from kerasmlp.uncertainty.abstention import Abstention
from kerasmlp.utils.checks import is_number, reject_file
from kerasmlp.utils.files import sha256_file

FORMAT = "kerasmlp.export"
RISKS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of wrong answers for which an export names the threshold to abstain above."""

WITHIN_YEARS = (3, 5, 10)
"""Tolerances for which it names them too."""


def describe(predictors: Sequence[Predictor]) -> dict:
    """What a client must know to ask an exported model and to read its answers.

    Args:
        predictors: Of all heads of a run.

    Returns:
        `width`, `normalized`, `embedder`, `embedder_sha256` and, where known, `preprocessing`
        of the embeddings, `max_samples`, where it comes from, and as `card` the facts of
        `card_facts`; then of classes and
        ages `class_names` of the probabilities, `class_age_years`,
        `label_names` and, of each class, the number of its label,
        `class_to_label`; `risk_thresholds_nats`: share of wrong answers to the
        entropy of the labels (natural logarithm, of the MC mean) above which
        to abstain, null where none can be promised; of ages also
        `within_years_thresholds_nats`: years that an answer may be off, to the
        same of the `predictive_entropy_nats`; the temperatures, the
        offsets of intervals and the `set_thresholds` that are in the model already, and
        `conformal_groups`, where a run has fitted them of groups. Of a number `unit`,
        the factors on its standard deviation as temperatures, and
        `interval_quantiles`: how many of these its intervals reach. Of several heads
        these are in `heads`, by name, and `outputs`: from the name
        of each output of a single head to its name here.

    Raises:
        InputError: if two outputs would have one name, or the report of the run is damaged.
    """
    first, several = predictors[0], len(predictors) > 1
    config, run = first.config, RunFolder(first.path)
    heads, report = {}, run.report()
    for p in predictors:
        of_head = report.get("heads", {}).get(p.name, {}) if several else report
        heads[p.name] = _described(p, run, of_head)
        if several:
            outputs = output_names(p.target, several=True)
            if not heads[p.name].get("set_thresholds"):
                outputs.pop(SET, None)
            heads[p.name]["outputs"] = outputs
    check_names(run.path, [n for h in heads.values() for n in h.get("outputs", {}).values()])
    return {
        "format": FORMAT,
        "label": "-".join(heads),
        "width": config["width"],
        "normalized": config["normalized"],
        "embedder": config["embedder"],
        "embedder_sha256": config["embedder_sha256"],
        **{k: config[k] for k in ("preprocessing",) if config.get(k) is not None},
        "max_samples": MAX_SAMPLES if can_be_sampled(first.model) else 0,
        **({"heads": heads} if several else heads[first.name]),
        "card": card_facts(run),
        "source": {
            "model_sha256": sha256_file(run / "model.keras"),
            "data_digest": config["data_digest"],
            "versions": {"kerasmlp": __version__, "tensorflow": tf.__version__},
        },
    }


def _described(predictor: Predictor, run: RunFolder, report: Mapping) -> dict:
    """One head."""
    target, calibration = predictor.target, predictor.calibration
    temperature = report.get("temperature")
    if not is_number(temperature) or not np.isfinite(temperature):
        reject_file(run / "report.json", "must hold a temperature", f"{temperature!r}")
    temperatures = {
        "temperature": temperature,
        "mc_temperature": calibration.mc_temperature if calibration else 1.0,
    }
    if target.is_number:
        quantiles = calibration.quantiles if calibration else {}
        number = {"unit": target.unit, **temperatures, "interval_quantiles": dict(quantiles)}
        return number | _groups(calibration)
    regrouped = target.measured(np.eye(target.num_classes)).argmax(axis=1)
    older = predictor.trained.classes
    thresholds = [
        _thresholds(abstention_of(calibration, target, older, years)[0])
        for years in (None, *(WITHIN_YEARS if target.is_age else ()))
    ]
    return {
        "class_names": list(target.class_names),
        "class_age_years": target.head_ages.centers.tolist() if target.is_age else None,
        "label_names": list(target.measured_names),
        "class_to_label": regrouped.tolist(),
        **temperatures,
        "interval_offsets_years": dict(calibration.offsets_years) if calibration else {},
        "set_thresholds": dict(calibration.set_thresholds or {}) if calibration else {},
        **_groups(calibration),
        "risk_thresholds_nats": thresholds[0],
        "within_years_thresholds_nats": dict(
            zip(map(str, WITHIN_YEARS), thresholds[1:], strict=False)
        ),
        "risk_min_samples": calibration.num_samples if calibration else 0,
    }


def _groups(calibration: RunCalibration | NumberCalibration | None) -> dict:
    """Limits of groups of rows, where the run has fitted them."""
    groups = calibration.groups if calibration else None
    return {"conformal_groups": asdict(groups)} if groups else {}


def _thresholds(abstention: Abstention | None) -> dict[str, float | None]:
    return {str(r): abstention.threshold(r) for r in RISKS} if abstention else {}
