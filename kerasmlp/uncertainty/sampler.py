"""The compiled part of MC dropout: a second model on the same weights whose dropout stays on."""

from __future__ import annotations

import threading
import weakref

import keras
from keras import ops

from kerasmlp.layers.downsample_block import DownsampleBlock
from kerasmlp.layers.ic_layer import ICLayer
from kerasmlp.layers.masks import SampleMasks
from kerasmlp.layers.residual_block import ResidualBlock
from kerasmlp.utils.checks import reject

_SAMPLING_LAYERS = (ICLayer, ResidualBlock, DownsampleBlock)


def sampling_model(model: keras.Model, *, masks: SampleMasks | None = None) -> keras.Model:
    """Returns a model on the same weights in which dropout is always on.

    Batch norm keeps its moving statistics, and the given model stays as
    deterministic as it was. Do not look for this in `model(x, training=True)`:
    that normalises each row with its neighbours and overwrites the moving
    statistics.

    Args:
        model: Functional or sequential model, nested as you like, with
            `ICLayer`s, blocks of this package, or `keras.layers.Dropout`.
        masks: For many passes at once; by default one pass per call, from the
            layers' own generators.

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
    sampler = _convert(model, True if masks is None else masks, converted)
    known = {id(v) for layer in converted for v in _seed_states(layer)}
    silent = [v.path for v in _seed_states(sampler) if id(v) not in known]
    if silent:
        reject("model", "must be random in ICLayer and Dropout only", silent[0])
    if not known:
        reject("model", "must have dropout with a rate above 0 to be sampled", model.name)
    return sampler


def _convert(
    model: keras.Model, sampling: bool | SampleMasks, converted: list[keras.layers.Layer]
) -> keras.Model:
    # As it was before `compile`, which cloning would repeat, loss, optimiser and all.
    model = keras.Model(model.inputs, model.outputs, name=model.name)

    def share(layer):
        if isinstance(layer, keras.Model):
            return _convert(layer, sampling, converted)
        if type(layer) is keras.layers.Dropout:
            if layer.rate >= 1:
                reject("model", "must have dropout with rates below 1 to be sampled", layer.name)
            config = {"noise_shape": layer.noise_shape, "seed": layer.seed, "name": layer.name}
            layer = _AlwaysDropout(layer.rate, sampling, dtype=layer.dtype_policy, **config)
        if isinstance(layer, (*_SAMPLING_LAYERS, _AlwaysDropout)):
            converted.append(layer)
        return layer

    def call(layer, *args, **kwargs):
        if isinstance(layer, _SAMPLING_LAYERS):
            kwargs["sampling"] = sampling
        elif sampling is not True:
            # Of the inputs of a merging layer only some may have passed a dropout.
            tensors = keras.tree.flatten((args, kwargs))
            if sum(isinstance(t, keras.KerasTensor) for t in tensors) > 1:
                args, kwargs = _expand_all(sampling, args, kwargs)
        return layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=share, call_function=call)


def _expand_all(masks: SampleMasks, args, kwargs):
    return keras.tree.map_structure(
        lambda t: _Expand(masks)(t) if isinstance(t, keras.KerasTensor) else t, (args, kwargs)
    )


def _seed_states(layer: keras.layers.Layer) -> list:
    return [v for v in layer.variables if v.path.endswith("seed_generator_state")]


class _Expand(keras.layers.Layer):
    def __init__(self, masks: SampleMasks):
        super().__init__(dtype="float32", autocast=False)
        self._masks = masks

    def call(self, inputs):
        return self._masks.expand(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


class _AlwaysDropout(keras.layers.Dropout):
    # `Dropout(rate)(x, training=True)` is switched off by `predict`, which says training=False.
    def __init__(self, rate, sampling, **kwargs):
        super().__init__(rate, **kwargs)
        self._sampling = sampling

    def call(self, inputs, training=False):
        if isinstance(self._sampling, SampleMasks):
            return self._sampling.dropout(inputs, self.rate, self.noise_shape)
        return super().call(inputs, training=True)


class Sampler(keras.Model):
    """Runs chunks of rows and passes of one model, compiled.

    Its inputs are `x` `(rows, …)`, `streams` as of `sample_streams` and
    `weights` `(passes,)`, 1 or 0 for passes that only fill up a chunk.

    Args:
        model: As in `sampling_model`.
        output: `"samples"`, of shape `(passes, rows, num_outputs)`; or sums over the passes:
            `"classes"`: of probabilities, entropies and votes; `"moments"`: mean
            and squared deviations.
        sparse: As of `SampleMasks`.
    """

    def __init__(self, model: keras.Model, output: str, *, sparse: bool = False):
        super().__init__(dtype="float32", autocast=False)
        self._masks = SampleMasks(sparse=sparse)
        self._passes = sampling_model(model, masks=self._masks)
        self._output = output
        self.jit_compile = all(layer.supports_jit for layer in self._passes.layers)

    def call(self, inputs):
        x, weights = inputs["x"], inputs["weights"]
        self._masks.bind(inputs["streams"], ops.shape(x)[0])
        outputs = self._masks.expand(self._passes(x, training=False), force=True)
        num_passes, width = ops.shape(weights)[0], outputs.shape[-1]
        samples = ops.reshape(outputs, (num_passes, ops.shape(x)[0], width))
        samples = ops.cast(samples, "float32")
        if self._output == "samples":
            return samples
        weights = ops.reshape(weights, (-1, 1, 1))
        if self._output == "moments":
            mean = ops.sum(samples * weights, axis=0) / ops.sum(weights)
            return {"mean": mean, "squares": ops.sum((samples - mean) ** 2 * weights, axis=0)}
        logs = ops.log(ops.where(samples > 0, samples, 1.0))
        # The first of the largest, as `argmax`, which XLA does not vectorise on a CPU.
        numbers = ops.arange(width, dtype="int32")
        largest = samples == ops.max(samples, axis=-1, keepdims=True)
        first = ops.min(ops.where(largest, numbers, width), axis=-1, keepdims=True)
        return {
            "probabilities": ops.sum(samples * weights, axis=0),
            "entropies": -ops.sum(samples * logs * weights, axis=(0, 2)),
            "votes": ops.sum(ops.cast(numbers == first, "float32") * weights, axis=0),
        }


lock = threading.Lock()
"""Held while a sampler runs: tracing binds its masks."""

_samplers: weakref.WeakKeyDictionary[keras.Model, dict] = weakref.WeakKeyDictionary()


def sampler_of(model: keras.Model, output: str, *, sparse: bool = False) -> Sampler:
    """The compiled sampler of a model, made once, and again when its layers have changed."""
    state = layers_state(model)
    samplers = _samplers.get(model)
    if samplers is None or samplers["state"] != state:
        samplers = _samplers[model] = {"state": state}
    key = output, sparse
    if key not in samplers:
        samplers[key] = Sampler(model, output, sparse=sparse)
    return samplers[key]


def layers_state(model: keras.Model) -> tuple:
    """What a compiled copy of a model depends on beside its weights."""
    state = []
    for layer in model.layers:
        rates = [getattr(layer, name, None) for name in ("rate", "dropout_rate", "noise_shape")]
        state.append((id(layer), *rates, str(layer.dtype_policy)))
        if isinstance(layer, keras.Model):
            state.extend(layers_state(layer))
    return tuple(state)
