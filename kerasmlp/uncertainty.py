"""MC dropout: a second model on the same weights whose dropout stays on."""

from __future__ import annotations

import threading
import weakref

import keras
import numpy as np

from kerasmlp.checks import check_int, reject
from kerasmlp.layers.downsample_block import DownsampleBlock
from kerasmlp.layers.ic_layer import ICLayer
from kerasmlp.layers.residual_block import ResidualBlock

_SAMPLING_LAYERS = (ICLayer, ResidualBlock, DownsampleBlock)
_ROWS_PER_PASS = 8192

_lock = threading.Lock()  # the masks' seeds are variables that all samplers of a model share
_samplers: weakref.WeakKeyDictionary[keras.Model, keras.Model] = weakref.WeakKeyDictionary()


def sampling_model(model: keras.Model) -> keras.Model:
    """Returns a model on the same weights in which dropout is always on.

    Batch norm keeps its moving statistics, and the given model stays as
    deterministic as it was. Do not look for this in `model(x, training=True)`:
    that normalises each row with its neighbours and overwrites the moving
    statistics.

    Args:
        model: Functional or sequential model, nested as you like, with
            `ICLayer`s, blocks of this package, or `keras.layers.Dropout`.

    Raises:
        InputError: if nothing in it drops out, or another layer is random:
            it would stay silent.

    Example:

    >>> from kerasmlp import ResidualMLP
    >>> model = ResidualMLP(num_classes=3, width=16, dropout_rate=0.5, seed=0)
    >>> sampler = sampling_model(model)
    >>> x = np.ones((1, 16), "float32")
    >>> bool((np.array(sampler(x)) == np.array(sampler(x))).all())
    False
    >>> bool((np.array(model(x)) == np.array(model(x))).all())
    True
    """
    converted: list[keras.layers.Layer] = []
    sampler = _convert(model, converted)
    known = {id(v) for layer in converted for v in _seed_states(layer)}
    silent = [v.path for v in _seed_states(sampler) if id(v) not in known]
    if silent:
        reject("model", "must be random in ICLayer and Dropout only", silent[0])
    if not known:
        reject("model", "must have dropout with a rate above 0 to be sampled", model.name)
    return sampler


def _convert(model: keras.Model, converted: list[keras.layers.Layer]) -> keras.Model:
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)

    def share(layer):
        if isinstance(layer, keras.Model):
            return _convert(layer, converted)
        if type(layer) is keras.layers.Dropout:
            config = {"noise_shape": layer.noise_shape, "seed": layer.seed, "name": layer.name}
            layer = _AlwaysDropout(layer.rate, dtype=layer.dtype_policy, **config)
        if isinstance(layer, (*_SAMPLING_LAYERS, _AlwaysDropout)):
            converted.append(layer)
        return layer

    def call(layer, *args, **kwargs):
        if isinstance(layer, _SAMPLING_LAYERS):
            kwargs["sampling"] = True
        return layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=share, call_function=call)


def _seed_states(layer: keras.layers.Layer) -> list:
    return [v for v in layer.variables if v.path.endswith("seed_generator_state")]


class _AlwaysDropout(keras.layers.Dropout):
    # `Dropout(rate)(x, training=True)` is switched off by `predict`, which says training=False.
    def call(self, inputs, training=False):
        return super().call(inputs, training=True)


def predict_samples(
    model: keras.Model, x: np.ndarray, *, num_samples: int = 64, seed: int = 0
) -> np.ndarray:
    """Draws outputs of the model under random dropout masks (Monte-Carlo dropout).

    Each row of each sample has masks of its own. The model, its moving
    statistics and its generators are afterwards as they were.

    Args:
        model: As in `sampling_model`.
        x: Embeddings, shape `(batch, width)`.
        num_samples: Number of stochastic passes (the paper takes 512).
        seed: Same seed and same `x`, same samples.

    Returns:
        Array `(num_samples, batch, num_classes)`, float32.

    Raises:
        InputError: if `x` does not fit the model, or the model cannot be
            sampled (see `sampling_model`).

    Example:

    >>> from kerasmlp import ResidualMLP
    >>> model = ResidualMLP(num_classes=3, width=16, dropout_rate=0.5, seed=0)
    >>> samples = predict_samples(model, np.ones((2, 16), "float32"), num_samples=10, seed=1)
    >>> samples.shape
    (10, 2, 3)

    Reference: Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016.
    """
    num_samples = check_int("num_samples", num_samples, minimum=1)
    seed = check_int("seed", seed, minimum=0)
    x = check_rows(model, x)
    with _lock:
        sampler = _samplers.get(model)
        if sampler is None:
            sampler = _samplers[model] = sampling_model(model)
        return _draw(sampler, x, num_samples, seed)


def _draw(sampler: keras.Model, x: np.ndarray, num_samples: int, seed: int) -> np.ndarray:
    states = _seed_states(sampler)
    before = [keras.ops.convert_to_numpy(s) for s in states]
    per_chunk = max(1, _ROWS_PER_PASS // num_samples)
    samples = np.empty((num_samples, len(x), sampler.output_shape[-1]), np.float32)
    try:
        for start in range(0, len(x), per_chunk):
            chunk = x[start : start + per_chunk]
            words = np.random.SeedSequence([seed, start]).generate_state(len(states)) >> 1
            for state, word in zip(states, words, strict=True):
                state.assign(np.array([word, 0], before[0].dtype))
            # The last chunk is filled up: its shape is then compiled already.
            rows = np.resize(chunk, (per_chunk, x.shape[1])) if start else chunk
            outputs = np.asarray(sampler.predict_on_batch(np.tile(rows, (num_samples, 1))))
            outputs = outputs.reshape(num_samples, len(rows), -1)
            samples[:, start : start + len(chunk)] = outputs[:, : len(chunk)]
    finally:
        for state, value in zip(states, before, strict=True):
            state.assign(value)
    return samples


def check_rows(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Returns `x` as float32 rows that fit the model, or rejects it."""
    x = np.asarray(x, np.float32)
    if len(model.inputs) != 1 or not isinstance(model.output_shape, tuple):
        reject("model", "must have one input and one output", model.name)
    width = model.input_shape[-1]
    if x.ndim != 2 or x.shape[1] != width:
        reject("x", f"must have shape (batch, {width})", x.shape)
    if not np.isfinite(x).all():
        reject("x", "must be finite", "NaN or infinity")
    return x
