"""MC dropout: outputs of a model under random masks, all of them or what they say together."""

import math
from collections.abc import Iterator

import keras
import numpy as np

from kerasmlp.layers.masks import sample_streams
from kerasmlp.uncertainty.graph import check_model, kept
from kerasmlp.uncertainty.measures import class_measures
from kerasmlp.uncertainty.sampler import Sampler
from kerasmlp.utils.checks import check_choice, check_int, reject

MAX_SAMPLES = 100_000
MASKS = ("independent", "shared")
_SHARED_ROWS = 64  # measured: more passes or more rows at once are both slower
_UNITS_PER_PASS = 1 << 24  # of the widest layer: feature maps of 8,192 rows fill the memory
_SPARSE_ROWS = 16  # with fewer, fetching weights takes longer than the products it saves


def predict_samples(
    model: keras.Model | Sampler,
    x: np.ndarray,
    *,
    num_samples: int = 64,
    seed: int = 0,
    masks: str = "independent",
    first_row: int = 0,
    rows_per_pass: int = 8192,
) -> np.ndarray:
    """Draws outputs of the model under random dropout masks (Monte-Carlo dropout).

    Batch norm keeps its moving statistics. Do not look for this in
    `model(x, training=True)`: that normalises each row with its neighbours and
    overwrites them. What comes before the first dropout is computed once per row.
    The model and its generators are afterwards as they were.

    Args:
        model: Functional or sequential model, nested as you like, with `ICLayer`s,
            blocks of this package, or `keras.layers.Dropout`. It keeps what is
            compiled of it; or one `Sampler` of it, for threads.
        x: Embeddings, shape `(batch, width)`, or what else the model takes.
        num_samples: Number of stochastic passes (the paper takes 512).
        seed: Decides all masks. The same seed gives the same samples, to
            rounding also when `x` is cut otherwise.
        masks: `"independent"`: every row of every pass has masks of its own.
            `"shared"`: all rows of a pass have the same, one draw of the weights,
            so a pass is one coherent function of `x`; faster too. The
            distribution of a single row is the same.
        first_row: Number of the first row, where `x` is a part of a larger set.
        rows_per_pass: How many rows × samples go through the model at once, fewer
            of images: bounds the memory beside the result.

    Returns:
        Array `(num_samples, batch, num_outputs)`, float32.

    Raises:
        InputError: if `x` does not fit the model, nothing in it drops out, or
            another layer is random: it would stay silent.

    Example:

    >>> from kerasmlp import ResidualMLP
    >>> model = ResidualMLP(num_classes=3, width=16, dropout_rate=0.5, seed=0)
    >>> samples = predict_samples(model, np.ones((2, 16), "float32"), num_samples=10, seed=1)
    >>> samples.shape
    (10, 2, 3)

    Reference: Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016.
    """
    sampler, x = _ready(model, x)
    check_int("num_samples", num_samples, minimum=1, maximum=MAX_SAMPLES)
    samples = np.empty((num_samples, len(x), sampler.model.output_shape[-1]), np.float32)
    chunks = _run(sampler, "samples", x, num_samples, seed, masks, first_row, rows_per_pass)
    for rows, passes, part in chunks:
        samples[passes, rows] = part[: passes.stop - passes.start, : rows.stop - rows.start]
    return samples


def predict_uncertainty(
    model: keras.Model | Sampler,
    x: np.ndarray,
    *,
    num_samples: int = 64,
    seed: int = 0,
    masks: str = "independent",
    first_row: int = 0,
    rows_per_pass: int = 8192,
) -> dict[str, np.ndarray]:
    """What `num_samples` stochastic passes say together; they are never held at once.

    Args:
        model: As in `predict_samples`, as all else.

    Returns:
        Of a model that ends in a softmax: `mean`, probabilities
        `(batch, num_classes)`, and all of `uncertainty_measures`,
        each `(batch,)`. Of another: `mean` and `epistemic_variance`,
        `(batch, num_outputs)`. All float64.

    Raises:
        InputError: as `predict_samples`.

    Example:

    >>> from kerasmlp import ResidualMLP
    >>> model = ResidualMLP(num_classes=3, width=16, dropout_rate=0.5, seed=0)
    >>> answer = predict_uncertainty(model, np.ones((2, 16), "float32"), num_samples=10)
    >>> answer["mean"].shape, answer["mutual_information_nats"].shape
    ((2, 3), (2,))
    """
    sampler, x = _ready(model, x)
    check_int("num_samples", num_samples, minimum=1)
    shape = (len(x), sampler.model.output_shape[-1])
    arguments = (x, num_samples, seed, masks, first_row, rows_per_pass)
    if ends_in_softmax(sampler.model):
        mean, votes, entropy = np.zeros(shape), np.zeros(shape), np.zeros(len(x))
        for rows, _, part in _run(sampler, "classes", *arguments):
            size = rows.stop - rows.start
            mean[rows] += part["probabilities"][:size]
            votes[rows] += part["votes"][:size]
            entropy[rows] += part["entropies"][:size]
        mean /= num_samples
        return {"mean": mean} | class_measures(mean, entropy / num_samples, votes / num_samples)
    mean, squares, done = np.zeros(shape), np.zeros(shape), 0
    for rows, passes, part in _run(sampler, "moments", *arguments):
        size, count = rows.stop - rows.start, passes.stop - passes.start
        done = passes.start
        # Chan et al.'s update: no difference of large sums
        shift = part["mean"][:size] - mean[rows]
        mean[rows] += shift * count / (done + count)
        squares[rows] += part["squares"][:size] + shift**2 * done * count / (done + count)
    return {"mean": mean, "epistemic_variance": squares / num_samples}


def _ready(model: keras.Model | Sampler, x: np.ndarray) -> tuple[Sampler, np.ndarray]:
    """The sampler of a model, and its rows, checked."""
    sampler = model if isinstance(model, Sampler) else kept(model, Sampler)
    return sampler, check_rows(sampler.model, x)


def _run(
    sampler: Sampler,
    output: str,
    x: np.ndarray,
    num_samples: int,
    seed: int,
    masks: str,
    first_row: int,
    rows_per_pass: int,
) -> Iterator[tuple[slice, slice, np.ndarray | dict[str, np.ndarray]]]:
    """Yields slices of rows and passes and what the sampler gives for them, filled up.

    Chunks are filled up to one shape, because every shape is compiled.
    """
    num_samples = check_int("num_samples", num_samples, minimum=1, maximum=MAX_SAMPLES)
    seed = check_int("seed", seed, minimum=0)
    if seed >= 1 << 63:
        reject("seed", "must be below 9223372036854775808", seed)
    first_row = check_int("first_row", first_row, minimum=0)
    rows_per_pass = check_int("rows_per_pass", rows_per_pass, minimum=1)
    check_choice("masks", masks, MASKS)
    if x.ndim > 2:
        rows_per_pass = min(rows_per_pass, max(1, _UNITS_PER_PASS // _widest(sampler.model)))
    shared = masks == "shared"
    # Shared masks: many rows and few passes in a chunk; else all passes of few rows.
    most_rows = _SHARED_ROWS if shared else max(1, rows_per_pass // num_samples)
    rows_per_chunk = min(most_rows, rows_per_pass, 1 << (len(x) - 1).bit_length() if len(x) else 0)
    passes_per_chunk = max(1, rows_per_pass // max(rows_per_chunk, 1))
    passes_per_chunk = -(-num_samples // -(-num_samples // passes_per_chunk))
    sparse = shared and rows_per_chunk >= _SPARSE_ROWS
    for start in range(0, len(x), max(rows_per_chunk, 1)):
        rows = slice(start, min(start + rows_per_chunk, len(x)))
        chunk = x[rows]
        if len(chunk) < rows_per_chunk:
            chunk = np.resize(chunk, (rows_per_chunk, *chunk.shape[1:]))
        numbers = np.arange(first_row + start, first_row + start + rows_per_chunk)
        for first in range(0, num_samples, passes_per_chunk):
            passes = slice(first, min(first + passes_per_chunk, num_samples))
            count = np.arange(first, first + passes_per_chunk)
            streams = sample_streams(seed, count, None if shared else numbers)
            weights = (count < num_samples).astype(np.float32)
            part = sampler.run(output, chunk, streams, weights, sparse=sparse)
            yield rows, passes, part


def _widest(model: keras.Model) -> int:
    """Most units of a row that any layer gives."""
    widths = [
        _widest(layer)
        if isinstance(layer, keras.Model)
        else max(math.prod(n or 1 for n in t.shape[1:]) for t in keras.tree.flatten(layer.output))
        for layer in model.layers
    ]
    return max(widths)


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether the outputs of a functional or sequential model are probabilities of classes."""
    steps = model.layers if isinstance(model, keras.Sequential) else model.operations
    last = steps[-1]
    if isinstance(last, keras.Model):
        return ends_in_softmax(last)
    if type(last).__name__ == "Softmax":  # the layer or `keras.ops.softmax`
        return True
    return getattr(last, "activation", None) is keras.activations.softmax


def check_rows(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Returns `x` as float32 rows that fit the model, or rejects it."""
    check_model(model)
    try:
        x = np.asarray(x)
    except ValueError:
        reject("x", "must be an array", "rows of different lengths")
    if x.dtype.kind not in "fiu":
        reject("x", "must hold numbers", x.dtype)
    with np.errstate(over="ignore"):  # infinity is refused below
        x = x.astype(np.float32)
    shape = model.input_shape[1:]
    if x.ndim != len(shape) + 1 or any(
        n not in (None, m) for n, m in zip(shape, x.shape[1:], strict=True)
    ):
        expected = ", ".join(map(str, ("batch", *shape)))
        reject("x", f"must have shape ({expected})", x.shape)
    if not np.isfinite(x).all():
        reject("x", "must be finite", "NaN or infinity")
    return x
