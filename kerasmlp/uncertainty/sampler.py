"""The compiled part of MC dropout: a model on whose weights many passes run as one."""

import warnings
from typing import Any

import keras
from keras import ops

from kerasmlp.layers.bfloat16 import cpu_multiplies_bfloat16
from kerasmlp.layers.downsample_block import DownsampleBlock
from kerasmlp.layers.ic_layer import ICLayer
from kerasmlp.layers.masks import SampleMasks
from kerasmlp.layers.members import ENDS, ends_in_members, members_of
from kerasmlp.layers.residual_block import ResidualBlock
from kerasmlp.uncertainty.graph import Graph, check_model
from kerasmlp.utils.checks import check_choice, reject
from kerasmlp.utils.compiled import answers

OUTPUTS = ("samples", "summary")
PRODUCTS = ("float32", "bfloat16")


class Sampler:
    """A model, ready to be sampled: compiled once, whatever number of calls and threads it serves.

    It follows the weights of the model; a change of its layers, such as another rate
    of dropout, takes a new one.

    Args:
        model: As of `predict_samples`.
        products: `"float32"`, or `"bfloat16"`: products behind the first dropout are of
            numbers rounded to bfloat16, summed in float32, on processors that have units for
            them; the mean of 512 passes moves by less than its Monte Carlo error. Several
            members multiply in float32.

    Raises:
        InputError: if it cannot be sampled, or not so on this processor.

    Example:

    >>> from kerasmlp import ResidualMLP, predict_samples
    >>> sampler = Sampler(ResidualMLP(num_classes=3, width=16, dropout_rate=0.5, seed=0))
    >>> chunks = [predict_samples(sampler, np.ones((2, 16), "float32"), seed=s) for s in range(3)]
    """

    def __init__(self, model: keras.Model, *, products: str = "float32"):
        self.model = check_model(model)
        self.products = check_choice("products", products, PRODUCTS)
        self._graph = Graph(model)
        sampled = list(_sampled_layers(self._graph))
        known = {id(v) for layer in sampled for v in _seed_states(layer)}
        silent = [v.path for v in _seed_states(model) if id(v) not in known]
        if silent:
            reject("model", "must be random in ICLayer and Dropout only", silent[0])
        self.members = members_of(model)
        if self.members > 1 and not all(map(ends_in_members, model.outputs)):
            reject("model", "must end in the means of its members to be sampled", model.name)
        if not known and self.members == 1:
            reject("model", "must have dropout with a rate above 0 to be sampled", model.name)
        self.jit_compiles = _jit_compiles(model)
        if products == "bfloat16" and not (self.jit_compiles and cpu_multiplies_bfloat16()):
            requirement = "must be float32 where no unit multiplies bfloat16, or XLA compiles not"
            reject("products", requirement, products)
        self.of_classes = [gives_classes(output) for output in model.outputs]
        ways = [(output, sparse) for output in OUTPUTS for sparse in (False, True)]
        self._compiled = {way: _Compiled(self, *way) for way in ways}

    def passes(self, x, masks: SampleMasks) -> list:
        """Outputs `(passes · rows, n)` of rows, in the order of `model.outputs`; batch norm keeps
        its moving statistics.

        Of several members each answers for itself, those of a pass one after the other: there
        are `members` times the passes of the masks.
        """
        found = [masks.expand(y, force=True) for y in _run(self._graph, [x], masks)]
        return [masks.members_first(y) if len(y.shape) > 2 else y for y in found]

    def run(self, output: str, x: Any, streams: Any, weights: Any, *, sparse: bool = False) -> list:
        """Runs one chunk of rows and passes, compiled; a list of what comes of each output.

        Args:
            output: `"samples"`, of shape `(steps, passes, rows, num_outputs)`; or `"summary"`,
                sums over the passes of each step: of classes, probabilities, entropies and
                votes; of others, their count, mean and squared deviations.
            x: Rows, `(rows, …)`.
            streams: As of `sample_streams`, `(steps, passes, rows or 1)`: the passes of a step
                run at once, the steps one after the other.
            weights: `(steps, passes)`, 1 or 0 for passes that only fill up a chunk.
            sparse: As of `SampleMasks`.
        """
        inputs = {"x": x, "streams": streams, "weights": weights}
        return answers(self._compiled[output, sparse], inputs)


def _run(graph: Graph, inputs: list, masks: SampleMasks) -> list:
    """Outputs of a graph under masks."""
    values = {id(t): ops.cast(x, t.dtype) for t, x in zip(graph.inputs, inputs, strict=True)}
    for step in graph.steps:
        layer, tensors = step.operation, [values[id(t)] for t in step.inputs]
        if isinstance(layer, Graph):
            results = _run(layer, tensors, masks)
        elif type(layer) is keras.layers.Dropout:
            x = ops.cast(*tensors, layer.compute_dtype)
            results = masks.dropout(x, layer.rate, layer.noise_shape)
        else:
            if len(tensors) > 1:  # only some of them may have passed a dropout
                tensors = [masks.expand(t) for t in tensors]
            args, kwargs = step.arguments_with(tensors)
            if isinstance(layer, _SAMPLING_LAYERS):
                kwargs["masks"] = masks
            if isinstance(layer, ENDS) and layer.members > 1:
                kwargs["apart"] = True
            kwargs |= {"training": False} if "training" in kwargs else {}
            results = layer(*args, **kwargs)
        results = keras.tree.flatten(results)
        values |= {id(t): result for t, result in zip(step.outputs, results, strict=True)}
    return [values[id(t)] for t in graph.outputs]


_SAMPLING_LAYERS = (ICLayer, ResidualBlock, DownsampleBlock)


def _sampled_layers(graph: Graph):
    for step in graph.steps:
        layer = step.operation
        if isinstance(layer, Graph):
            yield from _sampled_layers(layer)
        elif type(layer) is keras.layers.Dropout:
            if layer.rate >= 1:
                reject("model", "must have dropout with rates below 1 to be sampled", layer.name)
            yield layer
        elif isinstance(layer, _SAMPLING_LAYERS):
            yield layer


def _seed_states(layer: keras.layers.Layer) -> list:
    return [v for v in layer.variables if v.path.endswith("seed_generator_state")]


class _Compiled(keras.Model):
    def __init__(self, sampler: Sampler, output: str, sparse: bool):
        super().__init__(name="sampler", dtype="float32", autocast=False)
        self._model = sampler.model  # its weights are those of this one
        self._passes, self._output, self._sparse = sampler.passes, output, sparse
        self._of_classes, self._bfloat16 = sampler.of_classes, sampler.products == "bfloat16"
        self.jit_compile = sampler.jit_compiles
        self.built = True

    def call(self, inputs):
        # A loop in compiled code: what a step computes stays in the caches, and what comes
        # before the first dropout is computed once.
        steps = inputs["streams"], inputs["weights"]

        def step(own):
            return self._step(inputs["x"], *own)

        if keras.backend.backend() != "tensorflow":
            return ops.map(step, steps)
        import tensorflow as tf

        # `ops.map` traces a step twice, to learn what it gives, which is float32 throughout.
        names = [_CLASS_SUMS if of_classes else MOMENTS for of_classes in self._of_classes]
        gives = [dict.fromkeys(each, tf.float32) for each in names]
        if self._output == "samples":
            gives = [tf.float32] * len(names)
        return tf.map_fn(step, steps, fn_output_signature=gives)

    def _step(self, x, streams, weights) -> list:
        found = self._samples(x, streams)
        if self._output == "samples":
            return found
        weights = ops.reshape(weights, (-1, 1, 1))
        sums = [_class_sums if of_classes else _moments for of_classes in self._of_classes]
        return [of(samples, weights) for of, samples in zip(sums, found, strict=True)]

    def _samples(self, x, streams) -> list:
        """What each output is in the passes of a step, `(passes, rows, n)`."""
        masks = SampleMasks(streams, ops.shape(x)[0], sparse=self._sparse, bfloat16=self._bfloat16)
        found = self._passes(x, masks)
        shape = -1, ops.shape(x)[0]
        return [ops.cast(ops.reshape(y, (*shape, y.shape[-1])), "float32") for y in found]


def _jit_compiles(model: keras.Model) -> bool:
    """Whether Keras lets XLA compile a model: all layers can, and operations need not be
    deterministic."""
    same = keras.Model(model.inputs, model.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what this asks
        same.jit_compile = True
    return same.jit_compile


MOMENTS = ("count", "mean", "squares")
_CLASS_SUMS = ("probabilities", "entropies", "votes")


def _moments(samples, weights) -> dict:
    count = ops.sum(weights)
    mean = ops.sum(samples * weights, axis=0) / ops.maximum(count, 1.0)
    squares = ops.sum((samples - mean) ** 2 * weights, axis=0)
    return {"count": count, "mean": mean, "squares": squares}


def _class_sums(samples, weights) -> dict:
    width = samples.shape[-1]
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


def gives_classes(output: keras.KerasTensor) -> bool:
    """Whether an output of a functional or sequential model is probabilities of classes."""
    last, _, index = output._keras_history
    if isinstance(last, keras.Model):
        return gives_classes(last.outputs[index])
    if type(last).__name__ == "Softmax":  # the layer or `keras.ops.softmax`
        return True
    return getattr(last, "activation", None) is keras.activations.softmax
