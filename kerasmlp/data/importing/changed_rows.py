"""Embeddings that are brought to norm 1, or to half precision, streamed ones as they are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasmlp.data.importing.import_notes import ImportNotes
from kerasmlp.data.stores.embedding_store import NORM_TOLERANCE
from kerasmlp.data.stores.streamed_rows import AnyRows, StreamedRows, blocks_of
from kerasmlp.utils.checks import reject_file


class ChangedPart:
    """Rows, divided each by its norm where norms are given, in another precision.

    Args:
        rows: As they are stored.
        dtype: In which they are given.
        norms: Of the rows, or None.

    Example:

    >>> from kerasmlp.data.stores.streamed_rows import HeldPart
    >>> rows = StreamedRows([HeldPart(np.array([[3.0, 4.0]], "f4"))])
    >>> StreamedRows([ChangedPart(rows, np.dtype("f4"), np.array([5.0], "f4"))])[0].tolist()
    [0.6000000238418579, 0.800000011920929]
    """

    def __init__(self, rows: StreamedRows, dtype: np.dtype, norms: np.ndarray | None = None):
        self.shape, self.dtype = rows.shape, np.dtype(dtype)
        self._rows, self._norms = rows, norms

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._changed(slice(start, stop))

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._changed(rows)

    def _changed(self, which: slice | np.ndarray) -> np.ndarray:
        block = self._rows[which]
        if self._norms is not None:
            block = block / self._norms[which, None]
        return block.astype(self.dtype, copy=False)


def norms_checked(
    path: Any, embeddings: AnyRows, normalize: bool, claimed: bool, notes: ImportNotes
) -> tuple[AnyRows, bool]:
    """Embeddings, each divided by its norm if asked to, and whether all have norm 1.

    Args:
        path: For the errors.
        embeddings: `(rows, width)`.
        normalize: Whether to divide.
        claimed: Whether their file says that they have.
        notes: Are told of rows of zeros.
    """
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or 0 in embeddings.shape:
        return embeddings, False  # the store's constructor says what is wrong
    with np.errstate(over="ignore", invalid="ignore"):
        blocks = (b.astype(np.float32, copy=False) for _, b in blocks_of(embeddings))
        norms = np.concatenate([np.sqrt(np.vecdot(block, block)) for block in blocks])
    if not norms.all():
        zeros = np.flatnonzero(norms == 0)
        which = f"nothing but zeros in {len(zeros):,} rows, the first of them row {zeros[0]}"
        if normalize:
            reject_file(path, "must hold no row of zeros to be divided by its norm", which)
        if not claimed:  # else the store's constructor refuses them
            notes.doubt(f"{which}: kept as they are; are they embeddings that failed?")
    if normalize and np.isfinite(norms).all():
        if isinstance(embeddings, StreamedRows):
            part = ChangedPart(embeddings, embeddings.stored_dtype, norms)
            return StreamedRows([part]), True
        dtype = np.float16 if embeddings.dtype == np.float16 else np.float32
        wide = embeddings.astype(np.float32, copy=False)
        return (wide / norms[:, None]).astype(dtype), True
    return embeddings, claimed or bool((np.abs(norms - 1) <= NORM_TOLERANCE).all())


def halved(path: Any, embeddings: AnyRows) -> AnyRows:
    """Embeddings in half precision, if they fit."""
    of_blocks = [np.abs(block).max(initial=0) for _, block in blocks_of(embeddings)]
    largest = np.max(of_blocks, initial=0)
    if not largest <= np.finfo(np.float16).max:
        came = "NaN" if np.isnan(largest) else "numbers above 65504"
        reject_file(path, "must fit half precision for --float16", came)
    if isinstance(embeddings, StreamedRows):
        return StreamedRows([ChangedPart(embeddings, np.dtype(np.float16))])
    return embeddings.astype(np.float16)
