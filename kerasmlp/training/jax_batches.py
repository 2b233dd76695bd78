"""The chunks of `batches` under JAX: the same rows in the same order, without TensorFlow."""

import math
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from kerasmlp.training.chunks import chunks_of
from kerasmlp.training.orders import permutation, uniforms

_SHUFFLE, _MIXUP, _NOISE = range(3)  # independent random streams of one seed

Chunk = tuple[jax.Array, jax.Array, np.ndarray]


def training_chunks(
    x: jax.Array,
    y: jax.Array,
    *,
    batch_size: int,
    num_epochs: int,
    seed: int,
    first_epoch: int = 0,
    steps_per_epoch: int | None = None,
    mixup_alpha: float = 0.0,
    noise_std: float = 0.0,
    noise_units: np.ndarray | None = None,
    view_starts: np.ndarray | None = None,
    members: int = 1,
) -> Iterator[Chunk]:
    """Chunks as `batches.training_chunks` has them, orders and views of rows to the bit.

    Shares of mixup and noise hang on the seed and the number of the step alone, too, but are
    other numbers of the same distributions.

    Args:
        x: Embeddings, shape `(rows, width)`, float32.
        y: Target probabilities `(rows, num_classes)` or targets.
        batch_size: At most `rows`.
        num_epochs: Of the whole run.
        seed: Decides permutations, mixup and noise.
        first_epoch: Where to begin.
        steps_per_epoch: By default `rows // batch_size`; for more, further permutations
            follow in the same epoch.
        mixup_alpha, noise_std: As of `batches.training_chunks`; 0 turns them off.
        noise_units: Of the noise, one per column; None takes the norm of the row, to which
            it is brought back.
        view_starts: First row of each face whose views follow one another: of these one is
            drawn for a permutation. None: every row stands for itself.
        members: Of the model, whose chunks are put `side_by_side`; they bound the memory of all.
    """
    rows = len(x) if view_starts is None else len(view_starts)
    full = rows // batch_size
    steps = steps_per_epoch or full
    passes = math.ceil(steps / full)
    chunks, size = chunks_of(steps, members * batch_size)
    counts = np.minimum(size, steps - size * np.arange(chunks)).astype(np.int32)
    x, y = jnp.asarray(x), jnp.asarray(y)

    def order_of(number: int) -> np.ndarray:
        order = permutation(rows, (4 * seed + _SHUFFLE, number))
        if view_starts is not None:
            order = _drawn_views(view_starts, len(x), (4 * seed + _SHUFFLE, ~number))[order]
        return order[: full * batch_size]

    for epoch in range(first_epoch, num_epochs):
        orders = [order_of(epoch * passes + n) for n in range(passes)]
        order = np.concatenate(orders)[: steps * batch_size]
        order = np.pad(order, (0, (chunks * size - steps) * batch_size))
        for chunk, indices in enumerate(order.reshape(chunks, size, batch_size)):
            numbers = epoch * steps + chunk * size + np.arange(size)
            drawn = _drawn(seed, numbers, batch_size, mixup_alpha, noise_std)
            yield *_augmented(*_taken(x, y, indices), *drawn, noise_units), counts[chunk]


def side_by_side(chunks: Iterable[Iterator[Chunk]]) -> Iterator[Chunk]:
    """Chunks of the trainings of members as those of one: `(steps, batch_size, members, …)`.

    Args:
        chunks: As of `training_chunks`, one per member.
    """
    for each in zip(*chunks, strict=True):
        x, y, counts = zip(*each, strict=True)
        yield jnp.stack(x, axis=2), jnp.stack(y, axis=2), counts[0]


def _drawn_views(starts: np.ndarray, rows: int, seed: tuple[int, int]) -> np.ndarray:
    """The row of a view of each face, drawn at random."""
    counts = np.diff(starts, append=rows).astype(np.float32)
    return starts.astype(np.int32) + (uniforms(len(starts), seed) * counts).astype(np.int32)


def _drawn(seed: int, numbers: np.ndarray, rows: int, alpha: float, noise_std: float) -> tuple:
    """What hangs on single rows, drawn here: shares, standard deviations; and a key per step.

    To compile a sampler of Beta takes longer than to train a small network for an epoch.
    """
    shares = deviations = keys = None
    if alpha:
        streams = (np.random.default_rng((seed, _MIXUP, number)) for number in numbers)
        shares = np.stack([s.beta(alpha, alpha, (rows, 1)) for s in streams]).astype(np.float32)
    if noise_std:
        draws = [uniforms(rows, (4 * seed + _NOISE, int(number))) for number in numbers]
        deviations = np.float32(noise_std) * np.stack(draws)[..., None]
        keys = np.uint32(seed), numbers.astype(np.uint32)
    return shares, deviations, keys


@jax.jit  # for each number of rows, and quick to compile
def _taken(x, y, indices):
    return x[indices], y[indices]


@jax.jit
def _augmented(x, y, shares, deviations, keys, units):
    """Batches mixed, then with noise, as TensorFlow's `_augmented` does it."""
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    if shares is not None:
        # The permutation makes neighbours in a batch random: a roll is a random partner.
        x = shares * x + (1 - shares) * jnp.roll(x, 1, 1)
        y = shares * y + (1 - shares) * jnp.roll(y, 1, 1)
    if deviations is not None:
        seed, numbers = keys
        stream = jax.random.fold_in(jax.random.key(seed), _NOISE + 1)

        def noise_of(number):
            return jax.random.normal(jax.random.fold_in(stream, number), x.shape[1:])

        x += deviations * (norm if units is None else units) * jax.lax.map(noise_of, numbers)
        if units is None:
            x *= norm / jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x, y
