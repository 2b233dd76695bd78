"""From arrays to the batches that a compiled step eats: shuffled, mixed, the same for one seed."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from kerasmlp.data.stores.streamed_rows import AnyRows
from kerasmlp.training.blocks import Blocks
from kerasmlp.training.draws import MIXUP, NOISE, Draws
from kerasmlp.training.target_rows import TargetRows

# To look for branches on tensors, where there are none, takes a second of a training's start.
_as_it_is = tf.autograph.experimental.do_not_convert


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
) -> tf.data.Dataset:
    """Chunks of batches of epochs `first_epoch`..`num_epochs - 1`, all of one shape.

    An element is `(x, y, count)`: batches of `chunks_of` many steps, `(steps,
    batch_size, …)`, of which the first `count` belong to the epoch and the rest
    fills the chunk up.

    Every epoch is a new permutation, or several, that depend on `seed` and its number
    alone, so a resumed run sees what an uninterrupted one would have seen.
    The rows that do not fill a batch are left out of that permutation: one shape
    means one compilation.

    Args:
        x: Embeddings, shape `(rows, width)`, float32; streamed ones are read as they are drawn,
            in `Blocks` from files.
        y: Target probabilities `(rows, num_classes)` or targets.
        batch_size: At most `rows`.
        num_epochs: Of the whole run.
        seed: Decides permutations, mixup and noise.
        first_epoch: Where to begin.
        steps_per_epoch: By default `rows // batch_size`; for more, further permutations
            follow in the same epoch.
        mixup_alpha, noise_std: As of `_augmented`; 0 turns them off.
        noise_units: Of the noise, one per column; None takes the norm of the row, to which
            it is brought back.
        view_starts: First row of each face whose views follow one another: of these one is
            drawn for a permutation. None: every row stands for itself.
        members: Of the model, whose chunks are put `side_by_side`; they bound the memory of all.
        blocks: How rows in files are shuffled; None: as those of a single network.

    Example:

    >>> x, y = np.eye(10, 4, dtype="float32"), np.eye(10, 2, dtype="float32")
    >>> chunks = training_chunks(x, y, batch_size=3, num_epochs=2, seed=0)
    >>> [(batches.shape, int(count)) for batches, _, count in chunks]
    [(TensorShape([3, 3, 4]), 3), (TensorShape([3, 3, 4]), 3)]
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
        permutation=_permutation,
    )

    held = (x, y) if tf.is_tensor(x) else None  # of which the graph takes what is drawn
    numbers = np.arange(len(x), dtype=np.int32)
    source = (x, y) if held is None else (numbers, numbers)

    def drawn() -> Iterator[tuple]:
        for epoch in range(first_epoch, num_epochs):
            yield from draws.chunks(*source, epoch)

    @_as_it_is
    def augment(batches, targets, steps, count):
        if held is not None:
            batches, targets = tf.gather(held[0], batches), tf.gather(held[1], targets)
        how = {"mixup_alpha": mixup_alpha, "noise_std": noise_std, "noise_units": noise_units}
        return *_augmented(batches, targets, steps, seed, **how), count

    _, *shape = draws.shape
    kind = tf.float32 if held is None else tf.int32
    signature = (
        *(tf.TensorSpec((*shape, *part.shape[1:]), kind) for part in source),
        tf.TensorSpec(shape[:1], tf.int64),
        tf.TensorSpec((), tf.int32),
    )
    chunks = tf.data.Dataset.from_generator(drawn, output_signature=signature)
    return chunks.map(augment).prefetch(1).with_options(_untuned())


def at_hand(x: AnyRows, y: np.ndarray | TargetRows) -> tuple:
    """Rows and targets where `training_chunks` draws them from: tensors, but for streamed rows,
    which stay where they are."""
    if isinstance(x, np.ndarray):
        return tf.constant(x), tf.constant(np.asarray(y))
    return x, y


def _permutation(rows: int, seed: tuple[int, int]) -> np.ndarray:
    """That of `orders`, which Python takes a second for per three million."""
    with tf.device("CPU"):
        return tf.random.experimental.stateless_shuffle(tf.range(rows), seed).numpy()


def side_by_side(chunks: Sequence[tf.data.Dataset]) -> tf.data.Dataset:
    """Chunks of the trainings of members as those of one: `(steps, batch_size, members, …)`.

    Args:
        chunks: As of `training_chunks`, one per member.
    """

    @_as_it_is
    def stack(*each):
        x, y, counts = zip(*each, strict=True)
        return tf.stack(x, axis=2), tf.stack(y, axis=2), counts[0]

    return tf.data.Dataset.zip(*chunks).map(stack).prefetch(1).with_options(_untuned())


def _augmented(x, y, numbers, seed: int, *, mixup_alpha: float, noise_std: float, noise_units):
    """Batches of the steps of such numbers in the whole run, mixed, then with noise.

    Each row is mixed with another of its batch, with a share from Beta(mixup_alpha,
    mixup_alpha) of its own. Then it gets normal noise of a standard deviation drawn
    from U(0, noise_std), in units of its columns; or in that of its norm, to which it is
    then brought back as it was before both.

    Reference: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.
    Deviation: one share per row, not per batch.
    """
    rows, width = x.shape[1:]

    def drawn(draw: Callable, stream: int):
        """What `draw` makes of one key per step."""

        def of_step(number):
            return draw(tf.stack([4 * seed + stream, number]))

        return tf.map_fn(of_step, numbers, fn_output_signature=tf.float32)

    by_norm = noise_std and noise_units is None
    norm = tf.norm(x, axis=-1, keepdims=True) if by_norm else None
    if mixup_alpha:
        # The permutation makes neighbours in a batch random: a roll is a random partner.
        shares = drawn(lambda key: _beta(mixup_alpha, rows, key)[:, None], MIXUP)
        x = shares * x + (1 - shares) * tf.roll(x, 1, 1)
        y = shares * y + (1 - shares) * tf.roll(y, 1, 1)
    if noise_std:
        std = noise_std * drawn(lambda key: tf.random.stateless_uniform((rows, 1), key), NOISE)
        noise = drawn(lambda key: tf.random.stateless_normal((rows, width), key), NOISE + 1)
        x += std * (norm if by_norm else noise_units) * noise
        if by_norm:
            x *= norm / tf.norm(x, axis=-1, keepdims=True)
    return x, y


def epoch_batches(
    gather: Callable, rows: int, batch_size: int, steps: int, seed: int, epochs: range
) -> tf.data.Dataset:
    """What `gather` makes of the rows and the number of each step, in a new order every epoch.

    Args:
        gather: From indices `(batch_size,)` and the number of the step in the
            whole run, both tensors, to a batch.
        rows: To draw from.
        batch_size: Rows of a step.
        steps: Of an epoch.
        seed: Decides the orders, with the number of the epoch alone.
        epochs: Their numbers.

    Example:

    >>> batches = epoch_batches(lambda rows, step: (rows, step), 5, 2, 2, 0, range(1, 2))
    >>> [int(step) for _, step in batches]
    [2, 3]
    """

    @_as_it_is
    def epoch_of_indices(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(rows), [seed, epoch])
        batches = tf.reshape(order[: steps * batch_size], (steps, batch_size))
        numbers = epoch * steps + tf.range(steps, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((batches, numbers))

    return (
        tf.data.Dataset.range(epochs.start, epochs.stop)
        .flat_map(epoch_of_indices)
        .map(_as_it_is(gather), num_parallel_calls=1)
        .prefetch(4)
        .with_options(_untuned())
    )


def _untuned() -> tf.data.Options:
    # Nothing here is left to tune, and a dataset that is tuned takes up to as long to
    # delete as it was in use: it waits for its tuner, which looks up at ever longer intervals.
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _beta(alpha: float, size: int, key):
    gammas = tf.random.stateless_gamma((2, size), key, alpha, dtype=tf.float32) + 1e-12
    return gammas[0] / (gammas[0] + gammas[1])
