from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasmlp.data.stores.label_columns import as_column, joined_column
from kerasmlp.data.stores.row_reader import RowReader
from kerasmlp.data.stores.rows import digest_of, label_words, selected_rows
from kerasmlp.data.stores.store_file import open_store, reject_table, save_store
from kerasmlp.data.stores.store_info import StoreInfo, check_same_embedder, joined_info
from kerasmlp.utils.checks import reject, reject_file

FORMAT = "kerasmlp.embedding_store"
SCHEMA_VERSION = 1
_KIND = "an embedding store (`import-embeddings` makes one)"
NORM_TOLERANCE = 0.01


class EmbeddingStore:
    """Embeddings with their labels, in memory and in one HDF5 file.

    On disk `embedding` is one contiguous, uncompressed dataset, read whole in
    one go; labels are columns under `labels/`. In memory embeddings are
    float32. A store is biometric data: guard the file as such.

    Args:
        embeddings: Array `(rows, width)`, float16 or float32.
        labels: Column name to array `(rows,)` of integers, floats or text.
            `age_years` (float, NaN unknown), `age_group` (text), `gender`
            (0 male, 1 female, -1 unknown), `fold` (integer), `group` (rows of
            one group are never split) have a meaning; others are carried.
        info: Where the embeddings come from.
        name: The file or argument, for the errors.

    Raises:
        InputError: if rows are missing, not finite, not normalised although
            `info` says so, or a label is out of range.

    Example:

    >>> store = EmbeddingStore(np.eye(3, 8), {"gender": [0, 1, 1]})
    >>> len(store), store.width, store.labels["gender"]
    (3, 8, array([0, 1, 1], dtype=int8))
    >>> store.subset(store.labels["gender"] == 1)
    EmbeddingStore of 2 rows, 8 wide, float32, normalised, of an unknown embedder, labels gender
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        labels: Mapping[str, Sequence | np.ndarray] | None = None,
        info: StoreInfo | None = None,
        *,
        name: str | os.PathLike = "embeddings",
    ):
        self.info = info or StoreInfo()
        embeddings = np.asarray(embeddings)
        if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or 0 in embeddings.shape:
            reject_file(
                name,
                "must hold a numeric array (rows, width) with at least one row",
                f"shape {embeddings.shape}, dtype {embeddings.dtype}",
            )
        self.storage_dtype = _storage_dtype(embeddings.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            self.embeddings = np.ascontiguousarray(embeddings, np.float32)
            squared_norms = np.vecdot(self.embeddings, self.embeddings)
        _check_norms(name, squared_norms, self.info.normalized)
        self.labels = {k: as_column(name, k, v, len(self)) for k, v in (labels or {}).items()}

    @classmethod
    def _trusted(cls, embeddings, labels, info, storage_dtype) -> EmbeddingStore:
        """Rows of stores that were checked already."""
        store = cls.__new__(cls)
        store.embeddings, store.labels, store.info = embeddings, labels, info
        store.storage_dtype = storage_dtype
        return store

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        of = f"of {self.info.embedder or 'an unknown embedder'}"
        norm = _norm_word(self.info.normalized)
        parts = [f"{len(self):,} rows", f"{self.width} wide", f"{self.storage_dtype}", norm, of]
        return f"EmbeddingStore of {', '.join(parts)}, {label_words(self.labels)}"

    @property
    def width(self) -> int:
        return self.embeddings.shape[1]

    def digest(self) -> str:
        """SHA-256 of embeddings and labels: the same data, the same digest."""
        return digest_of(self.embeddings, self.labels)

    def subset(self, indices: Sequence[int] | np.ndarray) -> EmbeddingStore:
        """Returns the rows that an index or boolean array selects, in its order."""
        indices = selected_rows(indices, len(self))
        labels = {k: v[indices] for k, v in self.labels.items()}
        return self._trusted(self.embeddings[indices], labels, self.info, self.storage_dtype)

    @classmethod
    def concatenate(
        cls, stores: Sequence[EmbeddingStore], *, names: Sequence[str | os.PathLike] | None = None
    ) -> EmbeddingStore:
        """Joins stores of one width and one embedder; labels that a part lacks are unknown there.

        `group` and `fold` keep their values: give each source its own groups
        first where they could collide.

        Args:
            stores: At least one.
            names: Their files, for the errors.

        Raises:
            InputError: if widths, embedders, norms or kinds of labels differ.

        Example:

        >>> a, b = EmbeddingStore(np.eye(2)), EmbeddingStore(np.eye(2), {"gender": [0, 1]})
        >>> EmbeddingStore.concatenate([a, b]).labels["gender"]
        array([-1, -1,  0,  1], dtype=int8)
        """
        if not stores:
            reject("stores", "must hold at least one store", stores)
        names = names or ["stores"] * len(stores)
        first = stores[0]
        embedders = [s.info for s in stores if s.info.embedder_sha256]
        embedders += [s.info for s in stores if s.info.embedder]
        for name, store in zip(names, stores, strict=True):
            if store.width != first.width:
                reject_file(name, f"must have width {first.width}", f"width {store.width}")
            if store.info.normalized != first.info.normalized:
                reject_file(
                    name,
                    f"must hold embeddings that are {_norm_word(first.info.normalized)}, "
                    "as the first store does",
                    f"embeddings that are {_norm_word(store.info.normalized)}",
                )
            check_same_embedder(name, store.info, embedders[0] if embedders else first.info)
        keys = list(dict.fromkeys(k for store in stores for k in store.labels))
        rows = [len(store) for store in stores]
        labels = {k: joined_column(names, k, [s.labels.get(k) for s in stores], rows) for k in keys}
        return cls._trusted(
            np.concatenate([s.embeddings for s in stores]),
            labels,
            joined_info([s.info for s in stores]),
            max(s.storage_dtype for s in stores),
        )

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Writes the store as one HDF5 file, which appears whole or not at all.

        Raises:
            InputError: if the file exists and `overwrite` is False.
            OSError: if the disk is full; an old file is still there.
        """
        save_store(
            path, "embedding", self.embeddings, self.storage_dtype, self.labels, self.info,
            format_name=FORMAT, version=SCHEMA_VERSION, overwrite=overwrite,
        )  # fmt: skip

    @classmethod
    def open(
        cls, path: str | os.PathLike, *, verify: bool = False, most_bytes: int | None = None
    ) -> EmbeddingStore:
        """Reads a whole store and checks schema, sizes, NaN and norms.

        Args:
            path: Of the file.
            verify: True holds rows and labels against their checksums too, as
                all commands do; it costs a quarter to half of the reading time.
                Older files have none.
            most_bytes: That it may take in memory, or None: eight times the
                file's size and 512 MiB.

        Raises:
            InputError: naming the file, what was expected and what came.
        """
        reject_table(path, "an embedding store")
        with open_store(
            path, FORMAT, SCHEMA_VERSION, _KIND, verify=verify, most_bytes=most_bytes
        ) as file:
            info = StoreInfo.from_attributes(path, file.attributes)
            dataset, checksums = file.rows("embedding", "rows of numbers", 2, "fiu", 4)
            squared_norms = np.empty(len(dataset), np.float32)

            def square(start: int, block: np.ndarray) -> None:
                np.vecdot(block, block, out=squared_norms[start : start + len(block)])

            labels = file.labels(len(dataset), checksums.seed)
            with RowReader(file.raw, dataset, np.float32, checksums, square) as rows:
                embeddings = rows.result()
            storage_dtype = _storage_dtype(dataset.dtype)
        _check_norms(path, squared_norms, info.normalized)
        return cls._trusted(embeddings, labels, info, storage_dtype)


def _storage_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float16 if dtype.newbyteorder("=") == np.float16 else np.float32)


def _check_norms(name: Any, squared_norms: np.ndarray, normalized: bool) -> None:
    bad = np.flatnonzero(~np.isfinite(squared_norms))
    if len(bad):
        reject_file(
            name, "must hold finite numbers only", f"NaN or infinity in {len(bad)} rows, "
            f"the first of them row {bad[0]}"
        )  # fmt: skip
    norms = np.sqrt(squared_norms)
    bad = np.flatnonzero(np.abs(norms - 1) > NORM_TOLERANCE if normalized else norms == 0)
    if len(bad):
        reject_file(
            name,
            "must hold embeddings of norm 1, or say that they are not normalised"
            if normalized
            else "must hold no row of zeros",
            f"norm {norms[bad[0]]:.4g} in row {bad[0]} and {len(bad) - 1} other rows",
        )


def _norm_word(normalized: bool) -> str:
    return "normalised" if normalized else "not normalised"
