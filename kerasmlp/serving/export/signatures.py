"""The functions of an exported model: plain TensorFlow; no request changes another's answer."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from kerasmlp.layers.masks import SampleMasks, seeded_streams
from kerasmlp.models.residual_mlp import head_layer
from kerasmlp.serving.export.served_heads import ServedHead
from kerasmlp.uncertainty.sampler import Sampler

MAX_SAMPLES = 4096
"""A request for more stochastic passes is refused."""

_ROWS_PER_STEP = 4096  # rows × passes that are computed at once: bounds the memory


class Signatures(tf.Module):
    """Signatures `serving_default` and, of a model with dropout, `serve_mc`.

    | outputs | of classes, ages | of a number |
    | --- | --- | --- |
    | `serving_default` | `probabilities`, `label`; `age_years` | `number`, `std`, `interval_90` |
    | `serve_mc` | and the three below; `age_interval_90` | and `aleatoric_std`, `epistemic_std` |

    Of several heads each has these outputs under names of its own (see `output_names`);
    they share the trunk and, in `serve_mc`, the masks: a pass is one function of all labels.

    `serving_default` takes `embedding`, `serve_mc` also `num_samples` and `seed`.
    `probabilities` are those of the head, in `serve_mc` their mean; `label` is
    the likeliest of the measured classes. `predictive_entropy_nats` and
    `mutual_information_nats` are those of `uncertainty_measures`; `set_90` is 1 for each of the
    measured classes that is in the set, where the run has calibrated sets; `std` is that of the
    prediction, of which the squares of the two others are the parts.
    A row that is not finite, or too large to compute with, gets NaN and an
    empty label.

    `num_samples` and `seed` are one number for all rows or one per row. The
    answer to a row follows from its embedding and its two numbers alone: rows
    of one seed share their masks, as in `predict_samples(masks="shared")`, so
    a row gets the same answer whichever rows came with it.

    Args:
        model: A `ResidualMLP` in float32.
        heads: Of the model, in the order of its outputs, by their names; None of the only one.
        mc_model: To be sampled, as of `Predictor`; None without dropout or members.
    """

    def __init__(
        self,
        model: keras.Model,
        heads: Mapping[str | None, ServedHead],
        *,
        mc_model: keras.Model | None,
    ):
        super().__init__()
        # The tensors themselves: to load them takes no Keras.
        weights = [*model.weights, *(mc_model.weights if mc_model else ())]
        self.weights = list({id(v): v.value for v in weights}.values())
        self._heads = list(heads.values())
        embedding = tf.TensorSpec((None, model.input_shape[-1]), tf.float32, "embedding")
        specs = {"serving_default": (embedding,)}
        layers = [model.get_layer(head_layer(h.layer, name)) for name, h in heads.items()]
        ends = keras.Model(model.input, [layer.output for layer in layers])
        # A function, in which `tf.saved_model.save` finds no Keras.
        self._ends = lambda x: keras.tree.flatten(ends(x, training=False))
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
        ends = zip(self._heads, self._ends(x), strict=True)
        return _only(known, self._named([head.plain(y) for head, y in ends]))

    def serve_mc(self, embedding, num_samples, seed):
        rows = tf.shape(embedding)[0]
        num_samples = _per_row("num_samples", num_samples, rows, 1, MAX_SAMPLES)
        seed = _per_row("seed", seed, rows, 0, None)
        # Nothing to reshape in an empty batch: it is computed as one row, which is cut off again.
        x, known = _known_rows(tf.pad(embedding, [[0, tf.cast(rows == 0, tf.int32)], [0, 0]]))
        sums, count = self._sums(x, num_samples, seed), tf.cast(num_samples, tf.float64)
        sampled = [h.sampled(s, count) for h, s in zip(self._heads, sums, strict=True)]
        return {k: v[:rows] for k, v in _only(known, self._named(sampled)).items()}

    def _named(self, answers):
        """The answers of all heads by the names of the outputs."""
        both = zip(self._heads, answers, strict=True)
        return {head.names[k]: v for head, found in both for k, v in found.items()}

    def _sums(self, x, num_samples, seed):
        """Of each head, what it sums up over the passes."""
        rows, most = tf.shape(x)[0], tf.reduce_max(num_samples)
        # Rows of one seed have the same masks: drawn once, they broadcast.
        seed = tf.cond(tf.reduce_all(seed == seed[0]), lambda: seed[:1], lambda: seed)
        members = self._sampler.members
        rounds = most if members == 1 else (most + members - 1) // members
        of_masks = tf.clip_by_value(_ROWS_PER_STEP // (rows * members), 1, rounds)
        step = of_masks * members

        def add(first, sums):
            passes, masks = first + tf.range(step), first // members + tf.range(of_masks)
            outputs = self._sampler.passes(x, SampleMasks(seeded_streams(seed, masks), rows))
            # Passes beyond the last one only fill up the step.
            wanted = tf.cast(passes[:, None] < num_samples, tf.float32)
            added = []
            for head, output, before in zip(self._heads, outputs, sums, strict=True):
                samples = tf.reshape(output, (step, rows, output.shape[-1]))
                more = head.sums(samples, wanted)
                added.append([a + b for a, b in zip(before, more, strict=True)])
            return first + step, added

        zeros = [head.zeros(rows) for head in self._heads]
        shapes = [[tf.TensorShape((None, *z.shape[1:])) for z in each] for each in zeros]
        _, sums = tf.while_loop(
            lambda first, _: first < most,
            add,
            (0, zeros),
            shape_invariants=(tf.TensorShape(()), shapes),
            parallel_iterations=1,
        )
        return sums


def _known_rows(embedding):
    """The rows, with zeros in those that are not finite, and which are."""
    # On the way through the network a NaN may get lost: ReLU makes zeros of some.
    known = tf.reduce_all(tf.math.is_finite(embedding), axis=1)
    return tf.where(known[:, None], embedding, 0.0), known


def _only(known, answers: dict) -> dict:
    """Answers as float32 or text, blank in rows that are not known, or overflowed inside."""
    texts = {k: v for k, v in answers.items() if v.dtype == tf.string}
    numbers = {k: tf.cast(v, tf.float32) for k, v in answers.items() if k not in texts}
    for value in numbers.values():
        finite = tf.math.is_finite(value)
        known &= finite if value.shape.rank == 1 else tf.reduce_all(finite, axis=1)
    blanked = {k: tf.where(known, v, "") for k, v in texts.items()}
    for name, value in numbers.items():
        rows = known if value.shape.rank == 1 else known[:, None]
        blanked[name] = tf.where(rows, value, np.nan)
    return blanked


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
