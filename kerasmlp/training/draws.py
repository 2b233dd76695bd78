"""Which rows the steps of an epoch take: shuffled, in chunks of one shape, the same for a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerasmlp.training import orders
from kerasmlp.training.blocks import Blocks
from kerasmlp.training.chunks import chunks_of

SHUFFLE, MIXUP, NOISE = range(3)
"""Independent random streams of one seed."""

Permutation = Callable[[int, tuple[int, int]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What `training_chunks` of a backend draw from rows and targets.

    Every epoch is a new permutation, or several, that hang on the seed and its number alone.
    Rows that do not fill a batch are left out of that permutation.

    Attributes:
        rows: To draw from.
        batch_size: At most as many as them, or as there are faces.
        seed: Of all orders.
        steps_per_epoch: None: `rows // batch_size`; for more, further permutations follow in
            the same epoch.
        view_starts: As of `training_chunks`.
        members: As of `training_chunks`.
        blocks: How rows in files are shuffled; None shuffles all at once.
        permutation: As of `orders.permutation`, or what draws the same sooner.

    Example:

    >>> draws = Draws(rows=10, batch_size=3, seed=0)
    >>> x = np.eye(10, 4, dtype="float32")
    >>> [(rows.shape, count) for rows, _, _, count in draws.chunks(x, x, 0)]
    [((3, 3, 4), 3)]
    """

    rows: int
    batch_size: int
    seed: int
    steps_per_epoch: int | None = None
    view_starts: np.ndarray | None = None
    members: int = 1
    blocks: Blocks | None = None
    permutation: Permutation = field(default=orders.permutation)

    @property
    def faces(self) -> int:
        """Rows of a permutation."""
        return self.rows if self.view_starts is None else len(self.view_starts)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.steps_per_epoch or self.faces // self.batch_size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Chunks of an epoch, steps of a chunk, rows of a step."""
        return *chunks_of(self.steps, self.members * self.batch_size), self.batch_size

    def chunks(
        self, x: Any, y: Any, epoch: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.int32]]:
        """Yields the rows of each chunk, `(steps, batch_size, …)`, their targets, the numbers of
        the steps in the whole run and how many of them belong to the epoch; the rest fills up.

        Args:
            x: Rows, or streamed ones.
            y: Targets; both are asked by numbers of rows.
            epoch: Its number.
        """
        chunks, size, batch = self.shape
        order = self.order(epoch)
        every = order.reshape(chunks, size * batch)
        if self.blocks is None:
            rows = (x[indices] for indices in every)
        else:
            rows = self.blocks.chunks(x, order, size * batch)
        for chunk, (indices, found) in enumerate(zip(every, rows, strict=True)):
            start = chunk * size
            numbers = epoch * self.steps + start + np.arange(size)
            both = (part.reshape(size, batch, *part.shape[1:]) for part in (found, y[indices]))
            yield *both, numbers, np.int32(min(size, self.steps - start))

    def order(self, epoch: int) -> np.ndarray:
        """Numbers of the rows of all chunks of an epoch, one after the other."""
        full, (chunks, size, batch) = self.faces // self.batch_size, self.shape
        passes = math.ceil(self.steps / full)
        each = [self._permutation(epoch * passes + n)[: full * batch] for n in range(passes)]
        order = np.concatenate(each)[: self.steps * batch]
        return np.pad(order, (0, (chunks * size - self.steps) * batch))

    def _permutation(self, number: int) -> np.ndarray:
        seed = 4 * self.seed + SHUFFLE, number
        shuffled = self.permutation if self.blocks is None else self.blocks.order
        order = shuffled(self.faces, seed)
        if self.view_starts is None:
            return order
        return _drawn_views(self.view_starts, self.rows, (seed[0], ~number))[order]


def _drawn_views(starts: np.ndarray, rows: int, seed: tuple[int, int]) -> np.ndarray:
    """The row of a view of each face, drawn at random."""
    counts = np.diff(starts, append=rows).astype(np.float32)
    return starts.astype(np.int32) + (orders.uniforms(len(starts), seed) * counts).astype(np.int32)
