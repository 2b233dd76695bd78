"""What rows kept back fit once the weights stand: temperatures, age intervals, abstention."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from kerasmlp.callbacks.validation import forward
from kerasmlp.data.labels import NUM_YEARS, UNKNOWN
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import Target, in_groups, truth_years
from kerasmlp.evaluation.measuring import measure
from kerasmlp.evaluation.metrics import nll
from kerasmlp.runs.calibration import COVERAGES, RunCalibration, class_entropy_nats
from kerasmlp.runs.mc_model import has_dropout
from kerasmlp.uncertainty.abstention import Abstention
from kerasmlp.uncertainty.conformal import conformal_offset_years
from kerasmlp.uncertainty.measures import age_interval_years, entropy_nats, expected_age_years
from kerasmlp.uncertainty.samples import predict_samples
from kerasmlp.uncertainty.temperature import fit_temperature, logits_of, mean_of_passes
from kerasmlp.uncertainty.year_errors import YearErrors

MIN_TEMPERATURE_ROWS = 200
"""With fewer rows kept back a fitted temperature does more harm than good."""

CALIBRATION_SAMPLES = 64
"""Stochastic passes behind intervals and abstention, as `predict` takes them by default."""

MC_TEMPERATURE_ROWS = 1024


def calibrate(model: keras.Model, target: Target, part: EmbeddingStore) -> float:
    """Fits a temperature on a part and divides the head's weights by it."""
    logits_of = keras.Model(model.input, model.get_layer("logits").output)
    logits = forward(logits_of, part.embeddings)
    temperature = fit_temperature(logits, lambda p: measure(target, p, part)["nll"])
    head = model.get_layer("logits")
    head.set_weights([w / temperature for w in head.get_weights()])
    return temperature


def calibrate_answers(
    model: keras.Model, target: Target, part: EmbeddingStore, probabilities: np.ndarray
) -> RunCalibration:
    """Fits age intervals and abstention on a part, for the model as it will answer."""
    target = in_groups(target)
    of_model, temperature = {"deterministic": probabilities}, 1.0
    if has_dropout(model):
        chosen = np.linspace(0, len(part) - 1, MC_TEMPERATURE_ROWS).round().astype(int)
        some = part.subset(np.unique(chosen))
        samples = predict_samples(model, some.embeddings, num_samples=CALIBRATION_SAMPLES)
        temperature = fit_mc_temperature(target, some, samples)
        means = []
        for start in range(0, len(part), MC_TEMPERATURE_ROWS):
            rows = part.embeddings[start : start + MC_TEMPERATURE_ROWS]
            how = {"num_samples": CALIBRATION_SAMPLES, "first_row": start}
            means.append(mean_of_passes(predict_samples(model, rows, **how), temperature))
        of_model["mc_mean"] = np.concatenate(means)
    return fit_calibration(target, part, of_model, CALIBRATION_SAMPLES, temperature)


def fit_calibration(
    target: Target,
    part: EmbeddingStore,
    probabilities: Mapping[str, np.ndarray],
    num_samples: int,
    mc_temperature: float = 1.0,
) -> RunCalibration:
    """Fits intervals and abstention on rows that were not trained on.

    Args:
        target: Of the model.
        part: Rows kept back, all with the label.
        probabilities: Of the head, `(rows, num_classes)`, of the
            `deterministic` model and, if it has dropout, of the `mc_mean`.
        num_samples: Passes of the `mc_mean`.
        mc_temperature: That the passes had.
    """
    abstention = year_errors = None
    if "mc_mean" in probabilities:
        mean = probabilities["mc_mean"]
        labels = target.encode(part, target.classes)
        wrong = target.measured(mean).argmax(axis=1) != labels
        known = labels != UNKNOWN
        abstention = Abstention.fit(wrong[known], class_entropy_nats(target, mean)[known])
        year_errors = _year_errors(target, part, mean)
    offsets = {k: _offsets(target, part, p) for k, p in probabilities.items()}
    return RunCalibration(
        rows=len(part),
        num_samples=num_samples if "mc_mean" in probabilities else 0,
        offsets_years={k: v for k, v in offsets.items() if v},
        abstention=abstention,
        mc_temperature=mc_temperature,
        abstention_classes=target.classes if abstention else None,
        year_errors=year_errors,
    )


def fit_mc_temperature(target: Target, part: EmbeddingStore, samples: np.ndarray) -> float:
    """The temperature of the passes whose mean has the lowest NLL in the measured classes.

    Args:
        target: Of the model.
        part: Rows kept back.
        samples: Of the head on these rows, `(num_samples, rows, num_classes)`.

    Returns:
        1.0 with too few rows.
    """
    labels = target.encode(part, target.classes)
    known = labels != UNKNOWN
    if known.sum() < MIN_TEMPERATURE_ROWS:
        return 1.0

    def loss(scaled: np.ndarray) -> float:
        return nll(labels[known], target.measured(scaled.mean(axis=0)))

    return fit_temperature(logits_of(samples[:, known]), loss, tolerance=1e-2)


def _year_errors(target: Target, part: EmbeddingStore, mean: np.ndarray) -> YearErrors | None:
    years = truth_years(part) if target.is_age else None
    if years is None:
        return None
    known = np.isfinite(years)
    age_years = expected_age_years(mean[known], target.head_ages.centers)
    error_years = np.abs(np.minimum(years[known], NUM_YEARS - 1) - age_years)
    return YearErrors.fit(entropy_nats(mean[known]), error_years)


def _offsets(
    target: Target, part: EmbeddingStore, probabilities: np.ndarray
) -> dict[str, float] | None:
    years = truth_years(part) if target.is_age else None
    if years is None:
        return None
    known = np.isfinite(years)
    classes = np.asarray(target.head_ages.year_to_class)
    offsets = {}
    for c in COVERAGES:
        intervals = age_interval_years(probabilities[known], classes, c / 100)
        offsets[str(c)] = conformal_offset_years(years[known], intervals, c / 100)
    return None if None in offsets.values() else offsets
