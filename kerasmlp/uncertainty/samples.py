"""MC dropout: outputs of a model under random masks, all of them or what they say together."""

import math
from collections.abc import Iterator

import keras
import numpy as np

from kerasmlp.layers.masks import sample_streams
from kerasmlp.uncertainty.graph import check_model, kept, output_names
from kerasmlp.uncertainty.measures import class_measures
from kerasmlp.uncertainty.sampler import MOMENTS, Sampler
from kerasmlp.utils.backends import on_gpu
from kerasmlp.utils.checks import check_choice, check_int, reject

MAX_SAMPLES = 100_000
MASKS = ("independent", "shared")
_STEPS, _FEW_STEPS = 16, 4  # of one call of compiled code, and with how many it pays
_ROWS = 32
_SHARED_ROWS = 64  # measured: more rows at once are slower
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
    rows_per_pass: int | None = None,
) -> np.ndarray | dict[str, np.ndarray]:
    """Draws outputs of the model under random dropout masks (Monte-Carlo dropout).

    Batch norm keeps its moving statistics. Do not look for this in
    `model(x, training=True)`: that normalises each row with its neighbours and
    overwrites them. What comes before the first dropout is computed once per row.
    The model and its generators are afterwards as they were. Of a model with several
    members sample i is of member `i % members`: what they differ in is in the samples too.

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
            of images: bounds the memory beside the result. None takes 2,048, which stay in the
            caches of a processor; 8,192 on a GPU, or where XLA does not compile the model. A
            call holds the samples of up to 16 times as many.

    Returns:
        Array `(num_samples, batch, num_outputs)`, float32; of a model with several outputs
        a dict of them by name, which share their masks.

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
    widths = [output.shape[-1] for output in sampler.model.outputs]
    found = [np.empty((num_samples, len(x), width), np.float32) for width in widths]
    chunks = _run(sampler, "samples", x, num_samples, seed, masks, first_row, rows_per_pass)
    for rows, passes, parts in chunks:
        for samples, part in zip(found, parts, strict=True):
            part = part.reshape(-1, *part.shape[2:])
            samples[passes, rows] = part[: passes.stop - passes.start, : rows.stop - rows.start]
    return _named(sampler.model, found)


def predict_uncertainty(
    model: keras.Model | Sampler,
    x: np.ndarray,
    *,
    num_samples: int = 64,
    seed: int = 0,
    masks: str = "independent",
    first_row: int = 0,
    rows_per_pass: int | None = None,
) -> dict:
    """What `num_samples` stochastic passes say together; they are never held at once.

    Args:
        model: As in `predict_samples`, as all else.

    Returns:
        Of a model that ends in a softmax: `mean`, probabilities
        `(batch, num_classes)`, and all of `uncertainty_measures`,
        each `(batch,)`. Of another: `mean` and `epistemic_variance`,
        `(batch, num_outputs)`. All float64. Of a model with several outputs
        a dict of these by name.

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
    kinds = [_Classes if of_classes else _Moments for of_classes in sampler.of_classes]
    sums = [
        kind(len(x), output.shape[-1])
        for kind, output in zip(kinds, sampler.model.outputs, strict=True)
    ]
    chunks = _run(sampler, "summary", x, num_samples, seed, masks, first_row, rows_per_pass)
    for rows, passes, parts in chunks:
        for kept_sums, part in zip(sums, parts, strict=True):
            kept_sums.add(rows, passes, part)
    return _named(sampler.model, [kept_sums.measures(num_samples) for kept_sums in sums])


class _Classes:
    """Sums over the passes of probabilities."""

    def __init__(self, rows: int, width: int):
        self.mean, self.votes = np.zeros((rows, width)), np.zeros((rows, width))
        self.entropy = np.zeros(rows)

    def add(self, rows: slice, passes: slice, part: dict) -> None:
        size = rows.stop - rows.start
        self.mean[rows] += part["probabilities"].sum(axis=0, dtype=float)[:size]
        self.votes[rows] += part["votes"].sum(axis=0, dtype=float)[:size]
        self.entropy[rows] += part["entropies"].sum(axis=0, dtype=float)[:size]

    def measures(self, num_samples: int) -> dict[str, np.ndarray]:
        mean = self.mean / num_samples
        entropy, votes = self.entropy / num_samples, self.votes / num_samples
        return {"mean": mean} | class_measures(mean, entropy, votes)


class _Moments:
    """Mean and squared deviations over the passes."""

    def __init__(self, rows: int, width: int):
        self.mean, self.squares = np.zeros((rows, width)), np.zeros((rows, width))

    def add(self, rows: slice, passes: slice, part: dict) -> None:
        size, done = rows.stop - rows.start, passes.start
        for count, mean, squares in zip(*(part[k] for k in MOMENTS), strict=True):
            if not count:  # a step that only fills up the call
                break
            # Chan et al.'s update: no difference of large sums
            shift = mean[:size] - self.mean[rows]
            self.mean[rows] += shift * count / (done + count)
            self.squares[rows] += squares[:size] + shift**2 * done * count / (done + count)
            done += count

    def measures(self, num_samples: int) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "epistemic_variance": self.squares / num_samples}


def _named(model: keras.Model, found: list):
    """What was found of the outputs, by their names; of a single one as it is."""
    names = output_names(model)
    return found[0] if names is None else dict(zip(names, found, strict=True))


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
    rows_per_pass: int | None,
) -> Iterator[tuple[slice, slice, list]]:
    """Yields slices of rows and passes and what the sampler gives of each output, filled up.

    Chunks are filled up to one shape, because every shape is compiled.
    """
    num_samples = check_int("num_samples", num_samples, minimum=1, maximum=MAX_SAMPLES)
    seed = check_int("seed", seed, minimum=0)
    if seed >= 1 << 63:
        reject("seed", "must be below 9223372036854775808", seed)
    first_row = check_int("first_row", first_row, minimum=0)
    # Without XLA a loop would compute anew what comes before the first dropout, for a GPU
    # its steps are small.
    most_steps = _STEPS if sampler.jit_compiles and not on_gpu() else 1
    if rows_per_pass is None:
        rows_per_pass = 2048 if most_steps > 1 else 8192
    rows_per_pass = check_int("rows_per_pass", rows_per_pass, minimum=1)
    check_choice("masks", masks, MASKS)
    if x.ndim > 2:
        rows_per_pass = min(rows_per_pass, max(1, _UNITS_PER_PASS // _widest(sampler.model)))
    shared = masks == "shared"
    # Few rows, so that few are left over to be filled up; of few passes more, to fill the steps.
    most_rows = _SHARED_ROWS if shared else _rows(num_samples, rows_per_pass, most_steps)
    most_rows = min(most_rows, max(1, rows_per_pass // sampler.members))  # all members in a step
    rows_per_chunk = min(most_rows, rows_per_pass, 1 << (len(x) - 1).bit_length() if len(x) else 0)
    at_once = rows_per_pass // max(rows_per_chunk, 1)
    steps, passes_per_step = _cut(num_samples, at_once, sampler.members, most_steps)
    sparse = shared and rows_per_chunk >= _SPARSE_ROWS
    for start in range(0, len(x), max(rows_per_chunk, 1)):
        rows = slice(start, min(start + rows_per_chunk, len(x)))
        chunk = x[rows]
        if len(chunk) < rows_per_chunk:
            chunk = np.resize(chunk, (rows_per_chunk, *chunk.shape[1:]))
        numbers = np.arange(first_row + start, first_row + start + rows_per_chunk)
        for first in range(0, num_samples, steps * passes_per_step):
            count = first + np.arange(steps * passes_per_step)
            passes = slice(first, min(int(count[-1]) + 1, num_samples))
            own = count[:: sampler.members] // sampler.members  # each of all members
            streams = sample_streams(seed, own, None if shared else numbers)
            streams = streams.reshape(steps, -1, streams.shape[1])
            weights = (count < num_samples).astype(np.float32).reshape(steps, -1)
            yield rows, passes, sampler.run(output, chunk, streams, weights, sparse=sparse)


def _rows(num_samples: int, rows_per_pass: int, most_steps: int) -> int:
    """Rows of a call, of masks of their own."""
    many = min(_ROWS, most_steps * rows_per_pass // num_samples)
    return max(1, many, min(_FEW_STEPS, most_steps) * rows_per_pass // num_samples)


def _cut(num_samples: int, at_once: int, members: int, most_steps: int) -> tuple[int, int]:
    """Steps of a call, and passes of a step: few calls, evenly filled, all members in a step."""
    at_once = max(at_once // members, 1) * members
    passes = -(-num_samples // -(-num_samples // (most_steps * at_once)))
    steps = -(-passes // at_once)
    return steps, -(-passes // (steps * members)) * members


def _widest(model: keras.Model) -> int:
    """Most units of a row that any layer gives."""
    widths = [
        _widest(layer)
        if isinstance(layer, keras.Model)
        else max(math.prod(n or 1 for n in t.shape[1:]) for t in keras.tree.flatten(layer.output))
        for layer in model.layers
    ]
    return max(widths)


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
