from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasmlp.checks import reject, reject_file
from kerasmlp.files import atomic_path
from kerasmlp.stores.hdf5 import RowReader, open_hdf5, read_attributes, write_hdf5
from kerasmlp.stores.label_columns import as_column, unknown_like
from kerasmlp.stores.store_info import StoreInfo, check_same_embedder, joined_info

FORMAT = "kerasmlp.embedding_store"
SCHEMA_VERSION = 1
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
    >>> len(store.subset(store.labels["gender"] == 1))
    2
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

    @property
    def width(self) -> int:
        return self.embeddings.shape[1]

    def digest(self) -> str:
        """SHA-256 of embeddings and labels: the same data, the same digest."""
        digest = hashlib.sha256(repr(self.embeddings.shape).encode())
        digest.update(self.embeddings)
        for key in sorted(self.labels):
            column = self.labels[key]
            digest.update(key.encode() + column.dtype.kind.encode())
            digest.update(
                repr(column.tolist()).encode()
                if column.dtype.kind == "U"
                else np.ascontiguousarray(column)
            )
        return digest.hexdigest()

    def subset(self, indices: Sequence[int] | np.ndarray) -> EmbeddingStore:
        """Returns the rows that an index or boolean array selects, in its order."""
        indices = np.asarray(indices)
        if indices.dtype == bool and indices.shape == (len(self),):
            indices = np.flatnonzero(indices)
        if indices.size == 0:
            reject("indices", "must select at least one row", indices.tolist())
        if indices.ndim != 1 or indices.dtype.kind not in "iu":
            requirement = f"must be whole numbers, or {len(self)} times True or False"
            reject("indices", requirement, f"shape {indices.shape}, dtype {indices.dtype}")
        if indices.min() < -len(self) or indices.max() >= len(self):
            reject("indices", f"must be rows of a store of {len(self)}", int(indices.max()))
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
        labels = {k: np.concatenate(_aligned(names, stores, k)) for k in keys}
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
        path = Path(path)
        if path.exists() and not overwrite:
            reject_file(path, "must not exist yet", "an existing file")
        attributes = {"format": FORMAT, "schema_version": SCHEMA_VERSION}
        attributes |= {k: v for k, v in asdict(self.info).items() if v is not None}
        if self.info.removal_report is not None:
            attributes["removal_report"] = json.dumps(self.info.removal_report)
        columns = {f"labels/{key}": column for key, column in self.labels.items()}
        with atomic_path(path) as temporary:
            write_hdf5(temporary, self.embeddings, self.storage_dtype, columns, attributes)

    @classmethod
    def open(cls, path: str | os.PathLike) -> EmbeddingStore:
        """Reads a whole store and checks schema, sizes, NaN and norms.

        Raises:
            InputError: naming the file, what was expected and what came.
        """
        path = Path(path)
        with open_hdf5(path) as file:
            attributes = read_attributes(file)
            if attributes.get("format") != FORMAT:
                reject_file(
                    path,
                    "must be an embedding store (`import-embeddings` makes one)",
                    "an HDF5 file of another kind",
                )
            version = attributes.get("schema_version")
            if version != SCHEMA_VERSION:
                reject_file(path, f"must have schema version {SCHEMA_VERSION}", f"{version}")
            info = StoreInfo.from_attributes(path, attributes)
            dataset = file.get("embedding")
            _check_dataset(path, dataset)
            with RowReader(path, dataset) as reader:
                labels = _read_labels(path, file, len(dataset))
                embeddings, squared_norms = reader.result()
            storage_dtype = _storage_dtype(dataset.dtype)
        _check_norms(path, squared_norms, info.normalized)
        return cls._trusted(embeddings, labels, info, storage_dtype)


def _storage_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float16 if dtype.newbyteorder("=") == np.float16 else np.float32)


def _check_dataset(path: Path, dataset: Any) -> None:
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.ndim != 2
        or 0 in dataset.shape
        or dataset.dtype.kind not in "fiu"
    ):
        came = f"shape {getattr(dataset, 'shape', None)}, dtype {getattr(dataset, 'dtype', None)}"
        reject_file(path, "must hold rows of numbers as `embedding`", came)
    offset = dataset.id.get_offset()
    end = (offset or 0) + dataset.nbytes
    size = path.stat().st_size
    if offset is not None and end > size:
        reject_file(path, f"must be complete, {end:,} bytes or more", f"{size:,} bytes")


def _read_labels(path: Path, file: h5py.File, rows: int) -> dict[str, np.ndarray]:
    labels = {}
    for key, column in file["labels"].items() if "labels" in file else ():
        if getattr(column, "shape", None) != (rows,):
            came = f"shape {getattr(column, 'shape', None)}"
            reject_file(path, f"must hold {rows} values of label {key!r}", came)
        labels[key] = as_column(path, key, column[()], rows)
    return labels


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


def _aligned(names: Sequence, stores: Sequence[EmbeddingStore], key: str) -> list[np.ndarray]:
    present = next(s.labels[key] for s in stores if key in s.labels)
    text = present.dtype.kind == "U"
    for name, store in zip(names, stores, strict=True):
        if key in store.labels and (store.labels[key].dtype.kind == "U") != text:
            words = ("numbers", "text")
            expected, came = words[text], words[not text]
            reject_file(
                name, f"must hold {expected} in label {key!r} as others do, or go without it", came
            )
    return [s.labels.get(key, unknown_like(present, len(s))) for s in stores]
