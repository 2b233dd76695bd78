"""Rows that a training draws from: one copy in memory as they are stored, or blocks of files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.parquet_part import ParquetPart
from kerasmlp.data.stores.streamed_rows import AnyRows, StreamedRows
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.checks import reject
from kerasmlp.utils.memory import available_bytes

SHARE_OF_MEMORY = 0.5
"""Of what is available: rows that take more stay in their files."""
BLOCK_BYTES = 1 << 19
WINDOW_BYTES = 1 << 28
"""Both of rows in float32, and of all members of a network together."""
VIEWED_BYTES = 1 << 26
"""Of an array: parts of a larger one are views, where those of a smaller one are copied."""


@dataclass(frozen=True)
class Blocks:
    """How rows that stay in their files are shuffled.

    An epoch takes blocks of rows that lie one after the other in random order, and shuffles
    the rows of as many blocks as a window holds: so it reads what lies together.

    Attributes:
        rows: Of a block.
        window: Rows that are shuffled at once.

    Example:

    >>> blocks = Blocks(rows=2, window=6)
    >>> blocks.order(8, (0, 1)).tolist()
    [7, 1, 4, 0, 5, 6, 2, 3]
    """

    rows: int
    window: int

    @classmethod
    def of(cls, rows: Any, members: int = 1) -> Self | None:
        """How these are shuffled; None of rows in memory, all of which are at once.

        Args:
            rows: To draw from.
            members: Of one network, each of which has a window of its own: they share the memory
                of one, in as many blocks.
        """
        if getattr(rows, "in_memory", True):
            return None
        of_row = 4 * rows.shape[1] * members
        size = max(BLOCK_BYTES // of_row, 1)
        return cls(size, size * max(WINDOW_BYTES // (of_row * size), 1))

    def order(self, rows: int, seed: tuple[int, int]) -> np.ndarray:
        """The numbers of so many rows, in an order that hangs on the seed alone."""
        rng = np.random.default_rng(seed)
        starts = rng.permutation(-(-rows // self.rows)) * self.rows
        order = (starts[:, None] + np.arange(self.rows)).ravel()
        order = order[order < rows].astype(np.int32)
        for start in range(0, rows, self.window):
            rng.shuffle(order[start : start + self.window])
        return order

    def chunks(self, rows: AnyRows, order: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """Rows in an order, so many at once, of which a window is read at once.

        Args:
            rows: To be read.
            order: Numbers of rows, a multiple of `size`.
            size: Rows of a chunk.

        Example:

        >>> rows = np.arange(6.0)[:, None]
        >>> chunks = Blocks(rows=1, window=4).chunks(rows, np.array([3, 0, 1, 2, 5, 4]), 3)
        >>> [chunk.ravel().tolist() for chunk in chunks]
        [[3.0, 0.0, 1.0], [2.0, 5.0, 4.0]]
        """
        window = self.window * -(-size // self.window)
        rest = rows[order[:0]]
        for start in range(0, len(order), window):
            part = rows[order[start : start + window]]
            first = -len(rest) % size
            if first:
                yield np.concatenate([rest, part[:first]])
            last = len(part) - (len(part) - first) % size
            for at in range(first, last, size):
                yield part[at : at + size]
            rest = part[last:].copy()
            del part  # before the next is read


def blocks_in_config(rows: AnyRows, members: int = 1) -> dict[str, dict[str, int]]:
    """What a run says of how its rows are shuffled; nothing where all are at once."""
    blocks = Blocks.of(rows, members)
    return {} if blocks is None else {"blocks": asdict(blocks)}


def notes_of_blocks(rows: AnyRows, members: int = 1) -> list[str]:
    """The sentence that a report says of it, if any."""
    blocks = Blocks.of(rows, members)
    if blocks is None:
        return []
    notes = [
        "the rows would take too much of the memory, and stay in their files: epochs draw from "
        f"shuffled blocks of {blocks.rows:,} rows, {blocks.window:,} rows at once"
    ]
    if any(isinstance(part, ParquetPart) for part in getattr(rows, "parts", ())):
        notes.append(
            "from Parquet nearly all is read anew for each of these: an .h5 file, as "
            "`export-embeddings` makes of it, is read faster"
        )
    return notes


def bytes_as_begun(run_dir: str | os.PathLike, *, resume: bool) -> int | None:
    """The `most_bytes` by which a run that is resumed draws rows as it has begun to.

    Args:
        run_dir: Its folder.
        resume: Whether it is; None where not, or where none has begun.
    """
    run = RunFolder(run_dir)
    if not resume or not (run / "config.json").is_file():
        return None
    return bytes_as_told(not run.config().get("blocks"))


def in_memory_in_config(store: EmbeddingStore, processes: int) -> dict[str, bool]:
    """What a folder of many runs says of how all of them draw rows, whoever trains them, and when.

    Args:
        store: To be trained on.
        processes: That hold its rows at once, and share the memory.

    Returns:
        `in_memory`; nothing where the rows are in memory, or few, as the store is opened.
    """
    rows = store.embeddings
    if not isinstance(rows, StreamedRows) or rows.in_memory:
        return {}
    return {"in_memory": rows.held_bytes <= SHARE_OF_MEMORY * available_bytes() / processes}


def require_room(store: EmbeddingStore, in_memory: bool | None, workers: int) -> None:
    """Rejects more workers than can hold the rows, of a folder that began with all in memory."""
    rows = store.embeddings
    if not in_memory or not isinstance(rows, StreamedRows) or rows.in_memory or workers == 1:
        return
    most = max(int(available_bytes() / rows.held_bytes), 1)
    if workers > most:
        requirement = f"must be at most {most}, since its runs began with all rows in memory"
        reject("workers", requirement, workers)


def bytes_as_told(in_memory: bool | None) -> int | None:
    """The `most_bytes` of each process of many; None where the config does not tell.

    Example:

    >>> bytes_as_told(False)
    0
    """
    if in_memory is None:
        return None
    return sys.maxsize if in_memory else 0


def at_hand(store: EmbeddingStore, most_bytes: int | None = None) -> EmbeddingStore:
    """A store whose rows are in memory, once and as they are stored, if there is room.

    Args:
        store: To be trained on.
        most_bytes: That its rows may take; None: half of the memory that is available.
    """
    rows = store.embeddings
    if not isinstance(rows, StreamedRows):
        return store.held() if rows.nbytes > VIEWED_BYTES else store
    if rows.in_memory:
        return store
    if most_bytes is None:
        most_bytes = int(SHARE_OF_MEMORY * available_bytes())
    return store if rows.held_bytes > most_bytes else store.held()
