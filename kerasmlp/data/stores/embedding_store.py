from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from kerasmlp.data.stores.allowance import Allowance
from kerasmlp.data.stores.label_columns import joined_column
from kerasmlp.data.stores.parquet_rows import is_parquet_store, open_parquet
from kerasmlp.data.stores.row_store import Each, Judge, RowStore
from kerasmlp.data.stores.store_folder import MANIFEST, check_contents, shards_of
from kerasmlp.data.stores.store_info import StoreInfo, check_same_embedder, joined_info
from kerasmlp.data.stores.streamed_rows import (
    AnyRows,
    HeldPart,
    StreamedRows,
    blocks_of,
    joined_rows,
)
from kerasmlp.utils.checks import reject, reject_file

NORM_TOLERANCE = 0.01
STREAMED_BYTES = 1 << 29
"""Of rows in float32: above, they stay in their file."""


class EmbeddingStore(RowStore):
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

    FORMAT = "kerasmlp.embedding_store"
    KIND, COMMAND = "an embedding store", "import-embeddings"
    ROWS = ("embedding", "rows of numbers", 2, "fiu", np.float32)
    INFO = StoreInfo

    def __init__(
        self,
        embeddings: AnyRows,
        labels: Mapping[str, Sequence | np.ndarray] | None = None,
        info: StoreInfo | None = None,
        *,
        name: str | os.PathLike = "embeddings",
    ):
        info = info or StoreInfo()
        embeddings = embeddings if isinstance(embeddings, StreamedRows) else np.asarray(embeddings)
        if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or 0 in embeddings.shape:
            reject_file(
                name,
                "must hold a numeric array (rows, width) with at least one row",
                f"shape {embeddings.shape}, dtype {embeddings.dtype}",
            )
        rows, came = embeddings, getattr(embeddings, "stored_dtype", embeddings.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(rows, np.ndarray):
                rows = np.ascontiguousarray(rows, np.float32)
            squared_norms = np.concatenate([np.vecdot(b, b) for _, b in blocks_of(rows)])
        _check_norms(name, squared_norms, info.normalized)
        super().__init__(rows, labels, info, name, came)

    def __repr__(self) -> str:
        of = f"of {self.info.embedder or 'an unknown embedder'}"
        norm = _norm_word(self.info.normalized)
        parts = [f"{len(self):,} rows", f"{self.width} wide", f"{self.storage_dtype}", norm, of]
        return f"EmbeddingStore of {', '.join(parts)}, {self._words()}"

    @property
    def embeddings(self) -> AnyRows:
        """Of a large store they are streamed: indices, ranges and NumPy read them as float32."""
        return self.values

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def held(self) -> EmbeddingStore:
        """The same store with its rows in memory once, of which every subset is a view.

        Those that stay in files are read as they are stored there.
        """
        values = self.values
        if not isinstance(values, StreamedRows):
            values = StreamedRows([HeldPart(values)])
        return self._with_rows(values.held(), self.labels)

    @classmethod
    def concatenate(
        cls,
        stores: Sequence[EmbeddingStore],
        *,
        names: Sequence[str | os.PathLike] | None = None,
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> EmbeddingStore:
        """Joins stores of one width and one embedder; labels that a part lacks are unknown there.

        `group` and `fold` keep their values: give each source its own groups
        first where they could collide, as `join_stores` does.

        Args:
            stores: At least one.
            names: Their files, for the errors.
            labels: Columns of the whole, instead of those of the stores.

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
        check_alike(stores, names)
        if labels is None:
            labels, rows = {}, [len(store) for store in stores]
            for key in dict.fromkeys(k for store in stores for k in store.labels):
                labels[key] = joined_column(names, key, [s.labels.get(key) for s in stores], rows)
        return stores[0]._with_rows(
            joined_rows([s.embeddings for s in stores]),
            labels,
            info=joined_info([s.info for s in stores]),
            storage_dtype=max(s.storage_dtype for s in stores),
        )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike,
        *,
        verify: bool = False,
        most_bytes: int | None = None,
        streamed: bool | None = None,
    ) -> EmbeddingStore:
        if is_parquet_store(path):
            return cls._of_parquet(path, most_bytes, streamed)
        if not os.path.isdir(path):
            how = {"verify": verify, "most_bytes": most_bytes, "streamed": streamed}
            return super().open(path, **how)
        shards, info = shards_of(path)
        allowance = Allowance(path, sum(map(os.path.getsize, shards)), most_bytes)
        stores = []
        for shard in shards:
            how = {"verify": verify, "most_bytes": allowance.left, "streamed": True}
            stores.append(store := super().open(shard, **how))
            parts = [store.values, *store.labels.values()]
            allowance.take(sum(part.nbytes for part in parts), shard.name)
        for (shard, rows), store in zip(shards.items(), stores, strict=True):
            expected = f"{rows} rows with {_listed(stores[0].labels)}"
            if (came := f"{len(store)} rows with {_listed(store.labels)}") != expected:
                reject_file(shard, f"must hold {expected}, as {MANIFEST} or the first has", came)
        check_contents(path)
        names = [os.path.join(path, MANIFEST), *shards]
        check_alike([stores[0]._with_rows(stores[0].values, {}, info=info), *stores], names)
        whole = cls.concatenate(stores, names=names[1:])
        values = whole.values
        if not (values.nbytes > STREAMED_BYTES if streamed is None else streamed):
            values = np.asarray(values)
        return whole._with_rows(values, whole.labels, info=info, name=path)

    @classmethod
    def _of_parquet(
        cls, path: str | os.PathLike, most_bytes: int | None, streamed: bool | None
    ) -> EmbeddingStore:
        attributes, part, columns = open_parquet(path, most_bytes)
        rows = StreamedRows([part])
        info = StoreInfo.from_attributes(path, attributes)
        squared_norms = np.empty(part.shape[0], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # such rows are rejected below
            for start, block in rows.blocks():
                np.vecdot(block, block, out=squared_norms[start : start + len(block)])
        _check_norms(path, squared_norms, info.normalized)
        if not (rows.nbytes > STREAMED_BYTES if streamed is None else streamed):
            rows = np.asarray(rows)
        store = cls.__new__(cls)._with_rows(rows, {}, info=info, name=path)
        store.storage_dtype = part.dtype
        return store.with_labels(columns)

    @classmethod
    def _streams(cls, dataset: h5py.Dataset, streamed: bool | None) -> bool:
        if streamed is None:
            streamed = 4 * dataset.size > STREAMED_BYTES
        return streamed and lies_plain(dataset)

    @classmethod
    def watched(cls, path: Any, dataset: h5py.Dataset, info: StoreInfo) -> tuple[Each, Judge]:
        squared_norms = np.empty(len(dataset), np.float32)

        def square(start: int, block: np.ndarray) -> None:
            np.vecdot(block, block, out=squared_norms[start : start + len(block)])

        return square, lambda labels: _check_norms(path, squared_norms, info.normalized)


def _listed(labels: Mapping[str, np.ndarray]) -> str:
    return f"labels {', '.join(sorted(labels))}" if labels else "no labels"


def lies_plain(dataset: h5py.Dataset) -> bool:
    """Whether rows lie in the file one after the other, as numbers that NumPy takes as they are."""
    return dataset.id.get_offset() is not None and dataset.dtype in (np.float16, np.float32)


def check_alike(stores: Sequence[EmbeddingStore], names: Sequence[str | os.PathLike]) -> None:
    """Rejects a store of another width, norm or embedder than those before it."""
    (first, of_first), *_ = both = list(zip(stores, names, strict=True))
    known = [pair for pair in both if pair[0].info.preprocessing]
    known += [pair for pair in both if pair[0].info.embedder_sha256]
    known += [pair for pair in both if pair[0].info.embedder]
    expected, of_expected = (known or both)[0]
    for store, name in both:
        if store.width != first.width:
            requirement = f"must have width {first.width}, as `{of_first}` has"
            reject_file(name, requirement, f"width {store.width}")
        if store.info.normalized != first.info.normalized:
            reject_file(
                name,
                f"must hold embeddings that are {_norm_word(first.info.normalized)}, "
                f"as `{of_first}` does",
                f"embeddings that are {_norm_word(store.info.normalized)}",
            )
        check_same_embedder(name, store.info, expected.info, as_in=f", as `{of_expected}` does")


def _check_norms(name: Any, squared_norms: np.ndarray, normalized: bool) -> None:
    bad = np.flatnonzero(~np.isfinite(squared_norms))
    if len(bad):
        reject_file(
            name, "must hold finite numbers only", f"NaN or infinity in {len(bad)} rows, or "
            f"numbers above 1e18, the first of them row {bad[0]}"
        )  # fmt: skip
    norms = np.sqrt(squared_norms)
    bad = np.flatnonzero(np.abs(norms - 1) > NORM_TOLERANCE) if normalized else ()
    if len(bad):
        reject_file(
            name,
            "must hold embeddings of norm 1, or say that they are not normalised",
            f"norm {norms[bad[0]]:.4g} in row {bad[0]} and {len(bad) - 1} other rows",
        )


def lost_columns(given: AnyRows) -> list[int]:
    """Columns, such as of times since 1970, that vary and are constant in float32.

    Example:

    >>> lost_columns(np.array([[1.7e9, 0.3], [1.7e9 + 10, 0.1 + 0.2]]))
    [0]
    """
    if not len(given) or isinstance(given, StreamedRows):  # of single precision at most
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        rows = given.astype(np.float32)
    same = np.flatnonzero((rows == rows[:1]).all(axis=0))
    some = given[:, same].astype(np.float64)
    varies = np.ptp(some, axis=0) > 1e-12 * np.abs(some).max(axis=0, initial=0)
    return same[varies].tolist()


def _norm_word(normalized: bool) -> str:
    return "normalised" if normalized else "not normalised"
