"""The heads of an exported model in plain TensorFlow: what comes out becomes answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.targets import Target
from kerasmlp.layers.members import members_of
from kerasmlp.runs.conformal_groups import PREDICTED, SET
from kerasmlp.runs.predictor import Predictor
from kerasmlp.serving.export.output_names import output_names
from kerasmlp.uncertainty.numbers import number_intervals
from kerasmlp.uncertainty.prediction_sets import PENALTY


class ServedClasses:
    """A head of classes or ages.

    Args:
        target: What it predicts.
        names: Of its outputs, as of `output_names`.
        limits: Of the MC mean, one for each measured class that may be the likeliest: by
            percent the years by which age intervals grow, and `set_90`; as of `limits_of`.
        members: Of the model, whose logits lie side by side.
    """

    layer = "logits"
    """What it answers from."""

    def __init__(
        self,
        target: Target,
        names: Mapping[str, str],
        limits: Mapping[str, np.ndarray],
        members: int = 1,
    ):
        self.target, self.names, self._members = target, names, members
        self._limits = limits

    def plain(self, logits):
        """The deterministic answers, to what comes out of `layer`."""
        if self._members == 1:
            return self._answers(_softmax(logits))
        each = tf.reshape(logits, (-1, self._members, self.target.num_classes))
        return self._answers(tf.reduce_mean(_softmax(each), axis=1))

    def zeros(self, rows):
        """What sums over passes begin with."""
        return [
            tf.zeros((rows, self.target.num_classes), tf.float64),
            tf.zeros((rows,), tf.float64),
        ]

    def sums(self, samples, wanted):
        """Probabilities and entropies of passes, float64.

        Args:
            samples: `(passes, rows, outputs)`.
            wanted: `(passes, rows)`, 0 for passes that only fill up a step.
        """
        logs = tf.math.log(tf.where(samples > 0, samples, 1.0))
        entropies = -tf.reduce_sum(samples * logs, axis=2) * wanted
        sums = tf.reduce_sum(samples * wanted[:, :, None], axis=0)
        return [
            tf.cast(sums, tf.float64),
            tf.reduce_sum(tf.cast(entropies, tf.float64), axis=0),
        ]

    def sampled(self, sums, count):
        """The answers of MC dropout, to sums over so many passes of each row."""
        mean, expected_entropy = sums[0] / count[:, None], sums[1] / count
        entropy = -tf.reduce_sum(mean * tf.math.log(tf.where(mean > 0, mean, 1.0)), axis=1)
        answers = self._answers(tf.cast(mean, tf.float32)) | {
            "predictive_entropy_nats": entropy,
            "mutual_information_nats": tf.maximum(entropy - expected_entropy, 0.0),
        }
        measured = self._measured(mean)
        of_row = {k: tf.gather(v, tf.argmax(measured, axis=1)) for k, v in self._limits.items()}
        if SET in of_row:
            answers[SET] = _in_sets(measured, of_row[SET])
        if self.target.is_age:
            answers["age_interval_90"] = self._age_interval_90(mean, of_row)
        return answers

    def _measured(self, probabilities):
        """Probabilities of the classes that are measured."""
        target = self.target
        if target.measured_names == target.class_names:
            return probabilities
        sums = target.measured(np.eye(target.num_classes))
        return probabilities @ tf.constant(sums, probabilities.dtype)

    def _answers(self, probabilities):
        target = self.target
        likeliest = tf.argmax(self._measured(probabilities), axis=1)
        label = tf.gather(tf.constant(target.measured_names), likeliest)
        answers = {"probabilities": probabilities, "label": label}
        if target.is_age:
            centers = tf.constant(target.head_ages.centers, tf.float32)
            answers["age_years"] = tf.linalg.matvec(probabilities, centers)
        return answers

    def _age_interval_90(self, mean, limits):
        """As `run_calibration.age_intervals`."""
        ends = {}
        for percent in ("50", "90"):
            offset = limits.get(percent, 0.0)
            tail = (1 - int(percent) / 100) / 2
            low, high = (self._age_quantile_years(mean, q) for q in (tail, 1 - tail))
            middle, half = (low + high) / 2, tf.maximum((high - low) / 2 + offset, 0.0)
            last_year = len(self.target.head_ages.year_to_class) - 1.0
            ends[percent] = [tf.clip_by_value(middle + s * half, 0.0, last_year) for s in (-1, 1)]
        low = tf.minimum(ends["50"][0], ends["90"][0])
        return tf.stack([low, tf.maximum(ends["50"][1], ends["90"][1])], axis=1)

    def _age_quantile_years(self, mean, share: float):
        year_to_class = np.asarray(self.target.head_ages.year_to_class)
        spread = tf.gather(mean, year_to_class, axis=1)
        spread /= np.bincount(year_to_class)[year_to_class].astype(np.float64)
        cumulative = tf.cumsum(spread, axis=1)
        year = tf.reduce_sum(tf.cast(cumulative < share, tf.int32), axis=1)
        year = tf.minimum(year, len(year_to_class) - 1)
        beyond = tf.gather(cumulative, year, batch_dims=1) - share
        inside = tf.maximum(tf.gather(spread, year, batch_dims=1), 1e-300)
        return tf.cast(year, tf.float64) + 0.5 - tf.clip_by_value(beyond / inside, 0.0, 1.0)


class ServedNumber:
    """A head of numbers; methods as of `ServedClasses`.

    Args:
        target: What it predicts.
        names: Of its outputs.
        quantiles: Of a `NumberCalibration`; none leaves the intervals of a normal distribution.
    """

    layer = "gaussian"

    def __init__(
        self,
        target: NumberTarget,
        names: Mapping[str, str],
        quantiles: Mapping[str, Mapping[str, float]],
    ):
        self.target, self.names = target, names
        # How many standard deviations an interval reaches to each side.
        self._reach = {
            model: float(number_intervals(np.zeros(1), np.ones(1), quantiles.get(model))[90][0, 1])
            for model in ("deterministic", "mc_mean")
        }

    def plain(self, outputs):
        return self._answers(outputs[:, 0], outputs[:, 1], "deterministic")

    def zeros(self, rows):
        return [tf.zeros((rows, 3), tf.float64)]

    def sums(self, samples, wanted):
        """Numbers, their squares, and predicted variances."""
        samples, wanted = tf.cast(samples, tf.float64), tf.cast(wanted, tf.float64)
        number, std = samples[:, :, 0], samples[:, :, 1]
        sums = tf.stack([number, number * number, std * std], axis=2) * wanted[:, :, None]
        return [tf.reduce_sum(sums, axis=0)]

    def sampled(self, sums, count):
        means = sums[0] / count[:, None]
        number, aleatoric = means[:, 0], means[:, 2]
        # Of float32 numbers the difference of squares is exact enough in float64.
        epistemic = tf.maximum(means[:, 1] - number * number, 0.0)
        return self._answers(number, tf.sqrt(epistemic + aleatoric), "mc_mean") | {
            "aleatoric_std": tf.sqrt(aleatoric),
            "epistemic_std": tf.sqrt(epistemic),
        }

    def _answers(self, number, std, model: str):
        reach = self._reach[model] * std
        interval = tf.stack([number - reach, number + reach], axis=1)
        return {"number": number, "std": std, "interval_90": interval}


ServedHead = ServedClasses | ServedNumber


def served_head(predictor: Predictor, *, several: bool) -> ServedHead:
    """The head of a run as it is served, alone or among several."""
    target, calibration = predictor.target, predictor.calibration
    names = output_names(target, several=several)
    if target.is_number:
        return ServedNumber(target, names, calibration.quantiles if calibration else {})
    return ServedClasses(target, names, limits_of(predictor), members_of(predictor.model))


def limits_of(predictor: Predictor) -> dict[str, np.ndarray]:
    """The limits of intervals and sets where each measured class is the likeliest, by name.

    Limits by columns of labels, which a request does not bring along, are those of all rows.
    """
    calibration, target = predictor.calibration, predictor.target
    if calibration is None:
        return {}
    names, limits = np.array(target.measured_names), calibration.limits("mc_mean")
    if calibration.groups is not None and calibration.groups.by == (PREDICTED,):
        return calibration.groups.of_rows("mc_mean", limits, [names])
    return {name: np.full(len(names), limit) for name, limit in limits.items()}


def _in_sets(measured, thresholds):
    """As `prediction_sets`: 1 for each class in the set of its row."""
    order = tf.argsort(measured, axis=1, direction="DESCENDING", stable=True)
    down = tf.gather(measured, order, batch_dims=1)
    penalty = PENALTY * np.maximum(np.arange(measured.shape[1]) - 1, 0)
    scores = tf.cumsum(down, axis=1) - down + penalty
    # the likeliest is always in, whatever the last bit of a sum is
    first = np.eye(1, measured.shape[1], dtype=np.float32)
    chosen = tf.maximum(tf.cast(scores <= thresholds[:, None] + 1e-9, tf.float32), first)
    return tf.gather(chosen, tf.argsort(order, axis=1), batch_dims=1)


def _softmax(logits):
    """Probabilities; TensorFlow's own kernel gives a row other bits at another place of a batch."""
    powers = tf.exp(logits - tf.reduce_max(logits, axis=-1, keepdims=True))
    return powers / tf.reduce_sum(powers, axis=-1, keepdims=True)
