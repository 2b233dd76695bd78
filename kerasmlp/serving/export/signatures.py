"""The functions of an exported model: plain TensorFlow; no request changes another's answer."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from kerasmlp.data.targets import Target
from kerasmlp.layers.masks import SampleMasks, seeded_streams
from kerasmlp.uncertainty.sampler import Sampler

MAX_SAMPLES = 4096
"""A request for more stochastic passes is refused."""

_ROWS_PER_STEP = 4096  # rows × passes that are computed at once: bounds the memory


class Signatures(tf.Module):
    """Signatures `serving_default` and, of a model with dropout, `serve_mc`.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | `serving_default` | `embedding` | `probabilities`, `label`; of age `age_years` |
    | `serve_mc` | and `num_samples`, `seed` | and the two below; of age `age_interval_90` |

    `probabilities` are those of the head, in `serve_mc` their mean; `label` is
    the likeliest of the measured classes. `predictive_entropy_nats` and
    `mutual_information_nats` are those of `uncertainty_measures`.
    A row that is not finite, or too large to compute with, gets NaN and an
    empty label.

    `num_samples` and `seed` are one number for all rows or one per row. The
    answer to a row follows from its embedding and its two numbers alone: rows
    of one seed share their masks, as in `predict_samples(masks="shared")`, so
    a row gets the same answer whichever rows came with it.

    Args:
        model: From embeddings to probabilities, float32.
        target: What it predicts.
        offsets_years: By which the age intervals of the MC mean grow, by
            percent, as in `RunCalibration`; None leaves them as they are.
        mc_model: To be sampled, as of `Predictor`; None without dropout.
    """

    def __init__(
        self,
        model: keras.Model,
        target: Target,
        *,
        offsets_years: Mapping[str, float] | None,
        mc_model: keras.Model | None,
    ):
        super().__init__()
        # The tensors themselves: to load them takes no Keras.
        weights = [*model.weights, *(mc_model.weights if mc_model else ())]
        self.weights = list({id(v): v.value for v in weights}.values())
        self._target = target
        self._offsets_years = offsets_years or {"50": 0.0, "90": 0.0}
        embedding = tf.TensorSpec((None, model.input_shape[-1]), tf.float32, "embedding")
        specs = {"serving_default": (embedding,)}
        logits = keras.Model(model.input, model.get_layer("logits").output)
        self._logits = lambda x: logits(x, training=False)  # `tf.saved_model.save` finds no Keras
        if mc_model:
            self._sampler = Sampler(mc_model)
            num_samples = tf.TensorSpec(None, tf.int32, "num_samples")
            specs["serve_mc"] = (embedding, num_samples, tf.TensorSpec(None, tf.int64, "seed"))
        self.functions = {
            name: tf.function(getattr(self, name), input_signature=spec)
            for name, spec in specs.items()
        }

    def save(self, path: str) -> None:
        signatures = {k: f.get_concrete_function() for k, f in self.functions.items()}
        tf.saved_model.save(self, path, signatures)

    def serving_default(self, embedding):
        x, known = _known_rows(embedding)
        return _only(known, self._answers(_softmax(self._logits(x))))

    def serve_mc(self, embedding, num_samples, seed):
        rows = tf.shape(embedding)[0]
        num_samples = _per_row("num_samples", num_samples, rows, 1, MAX_SAMPLES)
        seed = _per_row("seed", seed, rows, 0, None)
        # Nothing to reshape in an empty batch: it is computed as one row, which is cut off again.
        x, known = _known_rows(tf.pad(embedding, [[0, tf.cast(rows == 0, tf.int32)], [0, 0]]))
        mean, expected_entropy = self._mean(x, num_samples, seed)
        entropy = -tf.reduce_sum(mean * tf.math.log(tf.where(mean > 0, mean, 1.0)), axis=1)
        answers = self._answers(tf.cast(mean, tf.float32)) | {
            "predictive_entropy_nats": entropy,
            "mutual_information_nats": tf.maximum(entropy - expected_entropy, 0.0),
        }
        if self._target.is_age:
            answers["age_interval_90"] = self._age_interval_90(mean)
        return {k: v[:rows] for k, v in _only(known, answers).items()}

    def _mean(self, x, num_samples, seed):
        """Mean probabilities and mean entropy of the passes, float64."""
        rows, num_classes = tf.shape(x)[0], self._target.num_classes
        most = tf.reduce_max(num_samples)
        # Rows of one seed have the same masks: drawn once, they broadcast.
        seed = tf.cond(tf.reduce_all(seed == seed[0]), lambda: seed[:1], lambda: seed)
        step = tf.clip_by_value(_ROWS_PER_STEP // rows, 1, most)

        def add(first, probabilities, entropy):
            passes = first + tf.range(step)
            (outputs,) = self._sampler.passes(x, SampleMasks(seeded_streams(seed, passes), rows))
            samples = tf.reshape(outputs, (step, rows, num_classes))
            # Passes beyond the last one only fill up the step.
            wanted = tf.cast(passes[:, None] < num_samples, tf.float32)
            logs = tf.math.log(tf.where(samples > 0, samples, 1.0))
            entropies = -tf.reduce_sum(samples * logs, axis=2) * wanted
            sums = tf.reduce_sum(samples * wanted[:, :, None], axis=0)
            return (
                first + step,
                probabilities + tf.cast(sums, tf.float64),
                entropy + tf.reduce_sum(tf.cast(entropies, tf.float64), axis=0),
            )

        _, probabilities, entropy = tf.while_loop(
            lambda first, *_: first < most,
            add,
            (0, tf.zeros((rows, num_classes), tf.float64), tf.zeros((rows,), tf.float64)),
            shape_invariants=(
                tf.TensorShape(()), tf.TensorShape((None, num_classes)), tf.TensorShape((None,))
            ),
            parallel_iterations=1,
        )  # fmt: skip
        count = tf.cast(num_samples, tf.float64)
        return probabilities / count[:, None], entropy / count

    def _answers(self, probabilities):
        target = self._target
        measured = probabilities
        if target.measured_names != target.class_names:
            measured @= target.measured(np.eye(target.num_classes)).astype(np.float32)
        label = tf.gather(tf.constant(target.measured_names), tf.argmax(measured, axis=1))
        answers = {"probabilities": probabilities, "label": label}
        if target.is_age:
            centers = tf.constant(target.head_ages.centers, tf.float32)
            answers["age_years"] = tf.linalg.matvec(probabilities, centers)
        return answers

    def _age_interval_90(self, mean):
        """As `run_calibration.age_intervals`."""
        ends = {}
        for percent, offset in self._offsets_years.items():
            tail = (1 - int(percent) / 100) / 2
            low, high = (self._age_quantile_years(mean, q) for q in (tail, 1 - tail))
            middle, half = (low + high) / 2, tf.maximum((high - low) / 2 + offset, 0.0)
            last_year = len(self._target.head_ages.year_to_class) - 1.0
            ends[percent] = [tf.clip_by_value(middle + s * half, 0.0, last_year) for s in (-1, 1)]
        low = tf.minimum(ends["50"][0], ends["90"][0])
        return tf.stack([low, tf.maximum(ends["50"][1], ends["90"][1])], axis=1)

    def _age_quantile_years(self, mean, share: float):
        year_to_class = np.asarray(self._target.head_ages.year_to_class)
        spread = tf.gather(mean, year_to_class, axis=1)
        spread /= np.bincount(year_to_class)[year_to_class].astype(np.float64)
        cumulative = tf.cumsum(spread, axis=1)
        year = tf.reduce_sum(tf.cast(cumulative < share, tf.int32), axis=1)
        year = tf.minimum(year, len(year_to_class) - 1)
        beyond = tf.gather(cumulative, year, batch_dims=1) - share
        inside = tf.maximum(tf.gather(spread, year, batch_dims=1), 1e-300)
        return tf.cast(year, tf.float64) + 0.5 - tf.clip_by_value(beyond / inside, 0.0, 1.0)


def _softmax(logits):
    """Probabilities; TensorFlow's own kernel gives a row other bits at another place of a batch."""
    powers = tf.exp(logits - tf.reduce_max(logits, axis=1, keepdims=True))
    return powers / tf.reduce_sum(powers, axis=1, keepdims=True)


def _known_rows(embedding):
    """The rows, with zeros in those that are not finite, and which are."""
    # On the way through the network a NaN may get lost: ReLU makes zeros of some.
    known = tf.reduce_all(tf.math.is_finite(embedding), axis=1)
    return tf.where(known[:, None], embedding, 0.0), known


def _only(known, answers: dict) -> dict:
    """Answers as float32 or text, blank in rows that are not known, or overflowed inside."""
    known &= tf.reduce_all(tf.math.is_finite(answers["probabilities"]), axis=1)

    def blanked(value):
        if value.dtype == tf.string:
            return tf.where(known, value, "")
        value = tf.cast(value, tf.float32)
        return tf.where(known if value.shape.rank == 1 else known[:, None], value, np.nan)

    return {k: blanked(v) for k, v in answers.items()}


def _per_row(name: str, values, rows, minimum: int, maximum: int | None):
    """Checked: one value for all rows, `(1,)`, or one per row; 1 where there are none."""
    values = tf.reshape(values, (-1,))
    size = tf.size(values)
    fits = (size == 1) | (size == rows)
    count = f"`{name}` must be one number, or one per row of `embedding`. Received:"
    good = (values >= minimum) & (values <= (maximum or values.dtype.max))
    limits = f"from {minimum} to {maximum}" if maximum else f">= {minimum}"
    checks = [
        tf.debugging.Assert(fits, [count, size, "numbers for rows:", rows]),
        tf.debugging.Assert(
            tf.reduce_all(good), [f"`{name}` must be {limits}. Received: {name}=", values]
        ),
    ]
    # Else the graph would begin to compute with what it is about to refuse.
    with tf.control_dependencies(checks):
        return tf.pad(values, [[0, tf.cast(size == 0, tf.int32)]], constant_values=1)
