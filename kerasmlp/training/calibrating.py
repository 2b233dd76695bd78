"""What rows kept back fit once the weights stand: temperatures, age intervals, abstention."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from kerasmlp.callbacks.validation import forward
from kerasmlp.data.examples import Examples
from kerasmlp.data.labels import NUM_YEARS
from kerasmlp.data.splits import one_of_each_group
from kerasmlp.data.targets import in_groups
from kerasmlp.evaluation.measuring import measure
from kerasmlp.evaluation.metrics import nll
from kerasmlp.layers.members import members_of
from kerasmlp.runs.calibration import RunCalibration, class_entropy_nats
from kerasmlp.runs.conformal_groups import SET
from kerasmlp.runs.number_calibration import NumberCalibration
from kerasmlp.training.conformal_fitting import fit_groups, limits_of_classes, limits_of_numbers
from kerasmlp.uncertainty.abstention import Abstention
from kerasmlp.uncertainty.measures import entropy_nats, expected_age_years
from kerasmlp.uncertainty.numbers import fit_spread, number_measures
from kerasmlp.uncertainty.sampler import Sampler
from kerasmlp.uncertainty.samples import predict_samples, predict_uncertainty
from kerasmlp.uncertainty.temperature import fit_temperature, logits_of, mean_of_passes
from kerasmlp.uncertainty.year_errors import YearErrors

MIN_TEMPERATURE_ROWS = 200
"""With fewer rows kept back a fitted temperature does more harm than good."""

MIN_SPREAD_ROWS = 20
"""As many for what is fitted to numbers: of yacht's 28 rows the log-likelihood gained 0.7 by it."""

CALIBRATION_SAMPLES = 64
"""Stochastic passes behind intervals and abstention, as `predict` takes them by default."""

MC_TEMPERATURE_ROWS = 1024

MOST_CALIBRATION_ROWS = 1 << 15
"""Of more, evenly spaced ones are passed through: these keep a promise of 90% to 0.2% already."""


def calibrate(model: keras.Model, part: Examples, logits: keras.layers.Layer) -> float:
    """The temperature of a layer of logits that has the lowest NLL on a part."""
    outputs = forward(keras.Model(model.input, logits.output), part.inputs)
    each = outputs.reshape(len(outputs), members_of(model), -1)  # the mean of whose answers counts
    return fit_temperature(each, lambda p: measure(part, p.mean(axis=1))["nll"])


def calibrate_answers(
    sampler: Sampler | None,
    part: Examples,
    probabilities: np.ndarray,
    name: str | None = None,
    by: Sequence[str] = (),
    mc_temperature: float = 1.0,
    group: str | None = None,
) -> RunCalibration:
    """Fits age intervals, sets and abstention on a part, for the model as it will answer.

    Args:
        sampler: Of the model; None without dropout.
        part: Rows kept back.
        probabilities: Of the deterministic model on them.
        name: Of the head, where the model has several.
        by: Columns whose groups have limits of their own, or `predicted`.
        mc_temperature: Of the passes, where the rows are too few to fit one.
        group: As of `fit_calibration`.
    """
    part = part.by(in_groups(part.target))
    of_model, temperature = {"deterministic": probabilities}, 1.0
    if sampler is not None:
        chosen = np.linspace(0, len(part) - 1, MC_TEMPERATURE_ROWS).round().astype(int)
        some = part.subset(np.unique(chosen))
        samples = _samples(sampler, some.inputs, name)
        temperature = fit_mc_temperature(some, samples, mc_temperature)
        means = []
        for start in range(0, len(part), MC_TEMPERATURE_ROWS):
            rows = part.inputs[start : start + MC_TEMPERATURE_ROWS]
            samples = _samples(sampler, rows, name, first_row=start)
            means.append(mean_of_passes(samples, temperature))
        of_model["mc_mean"] = np.concatenate(means)
    return fit_calibration(part, of_model, CALIBRATION_SAMPLES, temperature, by, group)


def empty_calibration(*, number: bool) -> RunCalibration | NumberCalibration:
    """Of a head that promises nothing."""
    empty = {"rows": 0, "num_samples": 0, "mc_temperature": 1.0}
    if number:
        return NumberCalibration(**empty, quantiles={})
    return RunCalibration(**empty, offsets_years={}, abstention=None)


def _samples(
    sampler: Sampler, x: np.ndarray, name: str | None, *, first_row: int = 0
) -> np.ndarray:
    how = {"num_samples": CALIBRATION_SAMPLES, "first_row": first_row}
    samples = predict_samples(sampler, x, **how)
    return samples if name is None else samples[name]


def calibrate_numbers(
    sampler: Sampler | None,
    part: Examples,
    answers: np.ndarray,
    name: str | None = None,
    by: Sequence[str] = (),
) -> NumberCalibration:
    """Fits intervals on a part, for a head of numbers as it will answer; as `calibrate_answers`."""
    mean, std = np.asarray(answers, np.float64).T
    of_model, temperature = {"deterministic": (mean, std)}, 1.0
    if sampler is not None:
        each = []
        for start in range(0, len(part), MC_TEMPERATURE_ROWS):
            rows = part.inputs[start : start + MC_TEMPERATURE_ROWS]
            how = {"num_samples": CALIBRATION_SAMPLES, "first_row": start}
            found = predict_uncertainty(sampler, rows, **how)
            each.append(number_measures(found if name is None else found[name]))
        moments = {k: np.concatenate([some[k] for some in each]) for k in each[0]}
        own, fixed = moments["aleatoric_variance"], moments["epistemic_variance"]
        if len(part) >= MIN_SPREAD_ROWS:
            temperature = fit_spread(part.targets, moments["mean"], own, fixed)
        of_model["mc_mean"] = moments["mean"], np.sqrt(temperature**2 * own + fixed)
    both = {k: np.stack(v, axis=1) for k, v in of_model.items()}
    quantiles = {k: limits_of_numbers(part, v) for k, v in both.items()}
    return NumberCalibration(
        rows=len(part),
        num_samples=0 if sampler is None else CALIBRATION_SAMPLES,
        mc_temperature=temperature,
        quantiles={k: v for k, v in quantiles.items() if v},
        groups=fit_groups(part, both, by, limits_of_numbers),
    )


def fit_calibration(
    part: Examples,
    probabilities: Mapping[str, np.ndarray],
    num_samples: int,
    mc_temperature: float = 1.0,
    by: Sequence[str] = (),
    group: str | None = None,
) -> RunCalibration:
    """Fits intervals, sets and abstention on rows that were not trained on.

    Abstention is of one row of each group, drawn at random: its promise is a test of rows that
    are draws of their own, and copies are none.

    Args:
        probabilities: Of the head, `(rows, num_classes)`, of the
            `deterministic` model and, if it has dropout, of the `mc_mean`.
        num_samples: Passes of the mean.
        mc_temperature: Of the passes.
        by: As of `calibrate_answers`.
        group: Column of rows that are no draws of their own, as of `Examples.groups`.
    """
    abstention, errors, mean = None, None, probabilities.get("mc_mean")
    if mean is not None:
        alone = one_of_each_group(part.groups(group), seed=0)
        once, answers = part.subset(alone), mean[alone]
        wrong, entropy = once.wrong(answers), class_entropy_nats(once.target, answers)
        abstention = Abstention.fit(wrong[once.known], entropy[once.known])
        errors = _year_errors(once, answers)
    limits = {k: limits_of_classes(part, p) for k, p in probabilities.items()}
    thresholds = {k: v.pop(SET) for k, v in limits.items() if SET in v}
    return RunCalibration(
        rows=len(part),
        num_samples=0 if mean is None else num_samples,
        offsets_years={k: v for k, v in limits.items() if v},
        abstention=abstention,
        mc_temperature=mc_temperature,
        abstention_classes=part.target.classes if abstention else None,
        year_errors=errors,
        set_thresholds=thresholds,
        groups=fit_groups(part, probabilities, by, limits_of_classes),
    )


def fit_mc_temperature(part: Examples, samples: np.ndarray, otherwise: float = 1.0) -> float:
    """The temperature of the passes whose mean has the lowest NLL in the measured classes;
    another one with too few rows."""
    known = part.known
    if known.sum() < MIN_TEMPERATURE_ROWS:
        return otherwise

    def loss(scaled: np.ndarray) -> float:
        return nll(part.targets[known], part.target.measured(scaled.mean(axis=0)))

    return fit_temperature(logits_of(samples[:, known]), loss, tolerance=1e-2)


def _year_errors(part: Examples, mean: np.ndarray) -> YearErrors | None:
    years, mean = _with_years(part, mean)
    if not len(years):
        return None
    age_years = expected_age_years(mean, part.target.head_ages.centers)
    error_years = np.abs(np.minimum(years, NUM_YEARS - 1) - age_years)
    return YearErrors.fit(entropy_nats(mean), error_years)


def _with_years(part: Examples, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ages and answers of the rows whose years are known, to a model of ages."""
    known = np.isfinite(part.years) & part.target.is_age
    return part.years[known], probabilities[known]
