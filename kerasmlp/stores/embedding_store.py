from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np

from kerasmlp.checks import reject, reject_file
from kerasmlp.files import atomic_path
from kerasmlp.labels import UNKNOWN

FORMAT = "kerasmlp.embedding_store"
SCHEMA_VERSION = 1
NORM_TOLERANCE = 0.01
MAX_AGE_YEARS = 130
_BLOCK_BYTES = 1 << 24  # measured: smaller ones lose more to page faults than they win in cache
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class StoreInfo:
    """Where the embeddings of a store come from.

    Attributes:
        embedder: Name of the embedding model, or None where unknown.
        embedder_sha256: Hash of its file. Two embedders of one width give
            different spaces: models refuse embeddings of another one.
        detector: Name of the face detector, or None.
        detector_sha256: Hash of its file.
        min_det_score: Threshold below which faces were removed; it belongs
            to this detector's scale.
        normalized: Whether every embedding has Euclidean norm 1.
        source: The data set, in words.
        licence: Of the data, in words.
        removal_report: `{"inputs": n, "kept": n, "removed": {reason: n}}`.
        created: When the store was written, ISO 8601.
    """

    embedder: str | None = None
    embedder_sha256: str | None = None
    detector: str | None = None
    detector_sha256: str | None = None
    min_det_score: float | None = None
    normalized: bool = True
    source: str | None = None
    licence: str | None = None
    removal_report: dict | None = None
    created: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )


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

    Raises:
        InputError: if rows are missing, not finite, not normalised although
            `info` says so, or a label is out of range.

    Example:

    >>> store = EmbeddingStore(np.eye(3, 8), {"gender": [0, 1, 1]})
    >>> len(store), store.width, store.labels["gender"]
    (3, 8, array([0, 1, 1]))
    >>> len(store.subset(store.labels["gender"] == 1))
    2
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        labels: Mapping[str, Sequence | np.ndarray] | None = None,
        info: StoreInfo | None = None,
        *,
        name: str = "embeddings",
    ):
        self.info = info or StoreInfo()
        embeddings = np.asarray(embeddings)
        if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or 0 in embeddings.shape:
            reject_file(
                name,
                "must hold a numeric array (rows, width) with at least one row",
                f"shape {embeddings.shape}, dtype {embeddings.dtype}",
            )
        self.storage_dtype = np.dtype(np.float16 if embeddings.dtype == np.float16 else np.float32)
        self.embeddings = np.ascontiguousarray(embeddings, np.float32)
        _check_norms(name, np.vecdot(self.embeddings, self.embeddings), self.info.normalized)
        self.labels = {k: _as_column(name, k, v, len(self)) for k, v in (labels or {}).items()}

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
            digest.update(repr(column.tolist()).encode() if column.dtype.kind == "U" else column)
        return digest.hexdigest()

    def subset(self, indices: np.ndarray) -> EmbeddingStore:
        """Returns the rows that an index or boolean array selects, in its order."""
        indices = np.asarray(indices)
        if indices.dtype == bool:
            indices = np.flatnonzero(indices)
        if len(indices) == 0:
            reject("indices", "must select at least one row", indices.tolist())
        labels = {k: v[indices] for k, v in self.labels.items()}
        return self._trusted(self.embeddings[indices], labels, self.info, self.storage_dtype)

    @classmethod
    def concatenate(cls, stores: Sequence[EmbeddingStore]) -> EmbeddingStore:
        """Joins stores of one width and one embedder; labels that a part lacks are unknown there.

        `group` and `fold` keep their values: give each source its own groups
        first where they could collide.
        """
        if not stores:
            reject("stores", "must hold at least one store", stores)
        first = stores[0]
        for store in stores[1:]:
            if store.width != first.width:
                reject("stores", f"must all have width {first.width}", store.width)
            if store.info.normalized != first.info.normalized:
                reject("stores", "must all be normalised or all not", store.info.normalized)
            check_same_embedder("stores", store.info, first.info)
        names = list(dict.fromkeys(k for store in stores for k in store.labels))
        labels = {k: np.concatenate(_aligned(stores, k)) for k in names}
        sources = dict.fromkeys(s.info.source for s in stores if s.info.source)
        licences = dict.fromkeys(s.info.licence for s in stores if s.info.licence)
        known = [s.info for s in stores if s.info.embedder_sha256]
        info = replace(
            known[0] if known else first.info,
            source="; ".join(sources) or None,
            licence="; ".join(licences) or None,
            removal_report=None,
            created=StoreInfo().created,
        )
        embeddings = np.concatenate([s.embeddings for s in stores])
        return cls._trusted(embeddings, labels, info, max(s.storage_dtype for s in stores))

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Writes the store as one HDF5 file, which appears whole or not at all."""
        path = Path(path)
        if path.exists() and not overwrite:
            reject_file(path, "must not exist yet", "an existing file")
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format"] = FORMAT
            file.attrs["schema_version"] = SCHEMA_VERSION
            for key, value in asdict(self.info).items():
                if value is not None:
                    file.attrs[key] = json.dumps(value) if key == "removal_report" else value
            file.create_dataset("embedding", data=self.embeddings, dtype=self.storage_dtype)
            for key, column in self.labels.items():
                if column.dtype.kind == "U":
                    encoded = np.char.encode(column, "utf-8")
                    width = max(encoded.dtype.itemsize, 1)
                    column = encoded.astype(h5py.string_dtype("utf-8", width))
                file.create_dataset(f"labels/{key}", data=column)

    @classmethod
    def open(cls, path: str | os.PathLike) -> EmbeddingStore:
        """Reads a whole store and checks schema, sizes, NaN and norms.

        Raises:
            InputError: naming the file, what was expected and what came.
        """
        path = Path(path)
        with open_hdf5(path) as file:
            if file.attrs.get("format") != FORMAT:
                reject_file(
                    path,
                    "must be an embedding store (`import-embeddings` makes one)",
                    "an HDF5 file of another kind",
                )
            version = file.attrs.get("schema_version")
            if version != SCHEMA_VERSION:
                reject_file(path, f"must have schema version {SCHEMA_VERSION}", f"{version}")
            dataset = file.get("embedding")
            if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2 or 0 in dataset.shape:
                shape = getattr(dataset, "shape", None)
                reject_file(path, "must hold rows of embeddings", f"shape {shape}")
            fields = {k: file.attrs[k] for k in StoreInfo.__dataclass_fields__ if k in file.attrs}
            try:
                columns = {k: v[()] for k, v in file["labels"].items()} if "labels" in file else {}
                embeddings, squared_norms = _read_rows(path, dataset)
                if "removal_report" in fields:
                    fields["removal_report"] = json.loads(fields["removal_report"])
            except (OSError, ValueError, EOFError) as error:
                reject_file(path, "must be complete", f"a damaged file ({error})")
            storage_dtype = dataset.dtype
        fields["normalized"] = bool(fields.get("normalized", True))
        info = StoreInfo(**fields)
        _check_norms(path, squared_norms, info.normalized)
        labels = {k: _as_column(path, k, v, len(embeddings)) for k, v in columns.items()}
        return cls._trusted(embeddings, labels, info, storage_dtype)


def open_hdf5(path: str | os.PathLike) -> h5py.File:
    """Opens an HDF5 file for reading, or says in one sentence why it cannot be."""
    if not Path(path).is_file():
        reject_file(path, "must be an HDF5 file", "no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reject_file(path, "must be a complete HDF5 file", f"{error}")


def check_same_embedder(name: str, came: StoreInfo, expected: StoreInfo) -> None:
    """Rejects embeddings of another embedder, where both are known."""
    if came.embedder_sha256 and expected.embedder_sha256:
        same = came.embedder_sha256 == expected.embedder_sha256
    else:
        same = None in (came.embedder, expected.embedder) or came.embedder == expected.embedder
    if not same:
        reject_file(
            name, f"must hold embeddings of {_describe(expected)}", f"those of {_describe(came)}"
        )


def _describe(info: StoreInfo) -> str:
    return f"{info.embedder} (sha256 {(info.embedder_sha256 or 'unknown')[:12]})"


def _read_rows(path: Path, dataset: h5py.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Reads all rows as float32 and their squared norms, in two passes of all cores."""
    embeddings = np.empty(dataset.shape, np.float32)
    squared_norms = np.empty(len(embeddings), np.float32)
    offset = dataset.id.get_offset()
    contiguous = offset is not None and dataset.dtype in (np.dtype("<f2"), np.dtype("<f4"))
    row_bytes = dataset.dtype.itemsize * dataset.shape[1]
    rows = max(1, _BLOCK_BYTES // row_bytes)

    def read(start: int) -> None:
        block = embeddings[start : start + rows]
        if not contiguous:  # rewritten by another program: chunked, compressed, big-endian
            block[:] = dataset[start : start + rows]
        elif dataset.dtype == np.float32:
            _fill(raw.fileno(), block, offset + start * row_bytes)
        else:
            half = np.empty(block.shape, np.float16)
            _fill(raw.fileno(), half, offset + start * row_bytes)
            block[:] = half
        np.vecdot(block, block, out=squared_norms[start : start + rows])

    with open(path, "rb") as raw, ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(read, range(0, len(embeddings), rows)))
    return embeddings, squared_norms


def _fill(descriptor: int, block: np.ndarray, offset: int) -> None:
    view = memoryview(block).cast("B")
    while len(view):
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise EOFError("the file ends before its last row")
        view, offset = view[count:], offset + count


def _check_norms(name, squared_norms: np.ndarray, normalized: bool) -> None:
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


def _as_column(name, key: str, values, rows: int) -> np.ndarray:
    """Checks one label column and brings it into one of three forms: integers, floats, text."""
    column = np.asarray(values)
    if column.dtype.kind == "S":
        column = _decode(column)
    elif column.dtype.kind == "O":
        texts = (v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in column.ravel())
        column = np.array(list(texts), dtype=str).reshape(column.shape)
    if column.shape != (rows,):
        reject_file(name, f"must hold {rows} values of label {key!r}", f"shape {column.shape}")
    if column.dtype.kind not in "iufbU":
        reject_file(name, f"must hold numbers or text in label {key!r}", f"{column.dtype}")
    if key == "age_years":
        column = column.astype(np.float32)
        bad = (column < 0) | (column > MAX_AGE_YEARS)
        _reject_rows(name, key, f"ages of 0 to {MAX_AGE_YEARS} years, or NaN", column, bad)
    elif key == "gender":
        bad = ~np.isin(column, (UNKNOWN, 0, 1))
        _reject_rows(name, key, "0 (male), 1 (female) or -1 (unknown)", column, bad)
        column = column.astype(np.int8)
    elif column.dtype.kind == "b":
        column = column.astype(np.int8)
    return column


def _decode(column: np.ndarray) -> np.ndarray:
    try:
        return column.astype(str)  # ASCII: five times faster
    except UnicodeDecodeError:
        return np.strings.decode(column, "utf-8")


def _reject_rows(name, key: str, expected: str, column: np.ndarray, bad: np.ndarray) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        reject_file(
            name,
            f"must hold {expected}, in label {key!r}",
            f"{column[row].item()!r} in row {row} and {int(bad.sum()) - 1} other rows",
        )


def unknown_like(column: np.ndarray, rows: int) -> np.ndarray:
    """A column of unknown labels of the same kind."""
    fill = {"f": np.nan, "U": ""}.get(column.dtype.kind, UNKNOWN)
    dtype = np.int32 if column.dtype.kind == "u" else column.dtype
    return np.full(rows, fill, dtype)


def _aligned(stores: Sequence[EmbeddingStore], key: str) -> list[np.ndarray]:
    present = next(s.labels[key] for s in stores if key in s.labels)
    kinds = {s.labels[key].dtype.kind == "U" for s in stores if key in s.labels}
    if len(kinds) > 1:
        reject("stores", f"must all hold text or all hold numbers in label {key!r}", "both")
    return [s.labels.get(key, unknown_like(present, len(s))) for s in stores]
