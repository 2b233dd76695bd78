"""The rows of an embedding store where they lie, in its file: memory holds what is looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from kerasmlp.data.row_hashes import row_hashes
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_paths import save_store
from kerasmlp.data.stores.streamed_rows import AnyRows, blocks_of


class StoredRows:
    """Rows of a store, of any precision, with what one pass over them tells.

    Everything that `EmbeddingStore.open` checks is checked, against the checksums too.

    Args:
        store: A file, or a store in memory.

    Attributes:
        name: The file, or the name of the store.
        values: `(rows, width)`, float32; of a file they are streamed.
        labels: As of an `EmbeddingStore`.
        info: As of an `EmbeddingStore`.
        scales: One over the norm of each row, 0 of a row of zeros; float32.
        hashes: Of `row_hashes`.

    Raises:
        InputError: naming the file, what was expected and what came.

    Example:

    >>> rows = StoredRows(EmbeddingStore(np.eye(3, 8), {"gender": [0, 1, 1]}))
    >>> len(rows), rows.values.shape, rows.scales
    (3, (3, 8), array([1., 1., 1.], dtype=float32))
    """

    def __init__(self, store: EmbeddingStore | str | os.PathLike):
        if not isinstance(store, EmbeddingStore):
            store = EmbeddingStore.open(store, verify=True, streamed=True)
        self.name, self.labels, self.info = store.name, store.labels, store.info
        self.values: AnyRows = store.embeddings
        self._store = store
        self.scales, hashes = np.zeros(len(self), np.float32), []
        for start, block in blocks_of(self.values):
            norms = np.sqrt(np.vecdot(block, block))
            into = self.scales[start : start + len(block)]
            np.divide(1, norms, out=into, where=norms > 0)
            hashes.append(row_hashes(block, half=self.info.normalized))
        self.hashes = np.concatenate(hashes)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def save_as(self, path: str | os.PathLike, labels: Mapping[str, np.ndarray]) -> None:
        """Writes a store of the same rows with other labels, in the same precision.

        Raises:
            InputError: if the file exists.
            OSError: if the disk is full.
        """
        save_store(self._store.with_labels(labels), path)
