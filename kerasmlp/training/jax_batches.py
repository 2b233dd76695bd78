"""The chunks of `batches` under JAX: the same rows in the same order, without TensorFlow."""

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from kerasmlp.data.stores.embedding_store import STREAMED_BYTES
from kerasmlp.data.stores.streamed_rows import AnyRows, StreamedRows
from kerasmlp.training.blocks import Blocks
from kerasmlp.training.draws import MIXUP, NOISE, Draws
from kerasmlp.training.orders import uniforms
from kerasmlp.training.target_rows import TargetRows

Chunk = tuple[jax.Array, jax.Array, np.ndarray]


def training_chunks(
    x: AnyRows,
    y: np.ndarray | TargetRows,
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
    blocks: Blocks | None = None,
) -> Iterator[Chunk]:
    """Chunks as `batches.training_chunks` has them, orders and views of rows to the bit.

    Shares of mixup and noise hang on the seed and the number of the step alone, too, but are
    other numbers of the same distributions.

    Args:
        x: Embeddings, shape `(rows, width)`, float32, or streamed.
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
        blocks: How rows in files are shuffled; None: as those of a single network.
    """
    x, y = at_hand(x, y)
    draws = Draws(
        rows=len(x),
        batch_size=batch_size,
        seed=seed,
        steps_per_epoch=steps_per_epoch,
        view_starts=view_starts,
        members=members,
        blocks=blocks or Blocks.of(x),
    )
    for epoch in range(first_epoch, num_epochs):
        for batches, targets, numbers, count in draws.chunks(x, y, epoch):
            drawn = _drawn(seed, numbers, batch_size, mixup_alpha, noise_std)
            yield *_augmented(batches, targets, *drawn, noise_units), count


def at_hand(x: AnyRows, y: np.ndarray | TargetRows) -> tuple:
    """Rows and targets where `training_chunks` draws them from: on the device, but for those of
    large stores, which stay where they are."""
    streamed = isinstance(x, StreamedRows) and x.in_memory and x.nbytes <= STREAMED_BYTES
    if streamed or isinstance(x, np.ndarray):
        return _OnDevice(np.asarray(x)), _OnDevice(np.asarray(y))
    return x, y


class _OnDevice:
    """Rows on the device, whence some are taken by compiled code."""

    def __init__(self, values: np.ndarray):
        self._values, self.shape = jnp.asarray(values), values.shape

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: np.ndarray) -> jax.Array:
        return _taken(self._values, rows)


def side_by_side(chunks: Iterable[Iterator[Chunk]]) -> Iterator[Chunk]:
    """Chunks of the trainings of members as those of one: `(steps, batch_size, members, …)`.

    Args:
        chunks: As of `training_chunks`, one per member.
    """
    for each in zip(*chunks, strict=True):
        x, y, counts = zip(*each, strict=True)
        yield jnp.stack(x, axis=2), jnp.stack(y, axis=2), counts[0]


def _drawn(seed: int, numbers: np.ndarray, rows: int, alpha: float, noise_std: float) -> tuple:
    """What hangs on single rows, drawn here: shares, standard deviations; and a key per step.

    To compile a sampler of Beta takes longer than to train a small network for an epoch.
    """
    shares = deviations = keys = None
    if alpha:
        streams = (np.random.default_rng((seed, MIXUP, number)) for number in numbers)
        shares = np.stack([s.beta(alpha, alpha, (rows, 1)) for s in streams]).astype(np.float32)
    if noise_std:
        draws = [uniforms(rows, (4 * seed + NOISE, int(number))) for number in numbers]
        deviations = np.float32(noise_std) * np.stack(draws)[..., None]
        keys = np.uint32(seed), numbers.astype(np.uint32)
    return shares, deviations, keys


@jax.jit  # for each number of rows, and quick to compile
def _taken(values, rows):
    return values[rows]


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
        stream = jax.random.fold_in(jax.random.key(seed), NOISE + 1)

        def noise_of(number):
            return jax.random.normal(jax.random.fold_in(stream, number), x.shape[1:])

        x += deviations * (norm if units is None else units) * jax.lax.map(noise_of, numbers)
        if units is None:
            x *= norm / jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x, y
