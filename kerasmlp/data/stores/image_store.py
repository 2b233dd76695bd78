from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kerasmlp.data.stores.label_columns import as_column
from kerasmlp.data.stores.row_reader import RowReader
from kerasmlp.data.stores.rows import digest_of, label_words, selected_rows
from kerasmlp.data.stores.store_file import open_store, save_store
from kerasmlp.data.stores.store_info import RowsInfo
from kerasmlp.utils.checks import reject_file

FORMAT = "kerasmlp.image_store"
SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")
_KIND = "an image store (`build-images` makes one)"
_SHAPE = "uint8 images (rows, height, width, 1 or 3 channels)"


class ImageStore:
    """Images of one size with their labels, in memory and in one HDF5 file.

    On disk `image` is one contiguous, uncompressed dataset of bytes, read whole
    in one go; labels are columns under `labels/`. Faces are personal data:
    guard the file as such.

    Args:
        images: Array `(rows, height, width, channels)`, uint8, 1 or 3 channels.
        labels: Column name to array `(rows,)` of integers, floats or text. `split`
            (`"train"`, `"validation"`, `"test"`) and the labels of an
            `EmbeddingStore` have a meaning; others are carried.
        info: Where the images come from.
        name: The file or argument, for the errors.

    Raises:
        InputError: if there are no rows, the array is of another kind, or a
            label is out of range.

    Example:

    >>> images = np.zeros((3, 32, 32, 3), np.uint8)
    >>> store = ImageStore(images, {"class": [0, 1, 1], "split": ["train", "test", "train"]})
    >>> len(store), store.rows("train")
    (3, array([0, 2]))
    >>> store.subset(store.rows("train")).labels["class"]
    array([0, 1])
    >>> store
    ImageStore of 3 images, 32×32 pixels, colour, labels class, split

    Reference: Dalva and Altındış, "Age Estimation" (CS 559, Bilkent University), section II-A.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: Mapping[str, Sequence | np.ndarray] | None = None,
        info: RowsInfo | None = None,
        *,
        name: str | os.PathLike = "images",
    ):
        images = np.asarray(images)
        if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape:
            reject_file(name, f"must hold {_SHAPE}", f"shape {images.shape}, dtype {images.dtype}")
        _check_channels(name, images.shape)
        self.images = np.ascontiguousarray(images)
        self.labels = {k: as_column(name, k, v, len(images)) for k, v in (labels or {}).items()}
        _check_splits(name, self.labels)
        self.info = info or RowsInfo()
        self.name = name

    @classmethod
    def _trusted(cls, images, labels, info, name) -> ImageStore:
        """Rows that were checked already."""
        store = cls.__new__(cls)
        store.images, store.labels, store.info, store.name = images, labels, info, name
        return store

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        height, width, channels = self.images.shape[1:]
        what = f"{height}×{width} pixels, {'grey' if channels == 1 else 'colour'}"
        return f"ImageStore of {len(self):,} images, {what}, {label_words(self.labels)}"

    def rows(self, split: str) -> np.ndarray:
        """Indices of the rows of one split.

        Raises:
            InputError: if there are none.
        """
        column = self.labels.get("split", np.full(len(self), ""))
        rows = np.flatnonzero(column == split)
        if not len(rows):
            there = ", ".join(repr(s) for s in SPLITS if (column == s).any())
            reject_file(self.name, f"must hold images of split {split!r}", there or "no splits")
        return rows

    def subset(self, indices: Sequence[int] | np.ndarray) -> ImageStore:
        """Returns the rows that an index or boolean array selects, in its order."""
        indices = selected_rows(indices, len(self))
        labels = {k: v[indices] for k, v in self.labels.items()}
        return self._trusted(self.images[indices], labels, self.info, self.name)

    def digest(self) -> str:
        """SHA-256 of images and labels: the same data, the same digest."""
        return digest_of(self.images, self.labels)

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Writes the store as one HDF5 file, which appears whole or not at all.

        Raises:
            InputError: if the file exists and `overwrite` is False.
            OSError: if the disk is full; an old file is still there.
        """
        save_store(
            path, "image", self.images, self.images.dtype, self.labels, self.info,
            format_name=FORMAT, version=SCHEMA_VERSION, overwrite=overwrite,
        )  # fmt: skip

    @classmethod
    def open(cls, path: str | os.PathLike, *, verify: bool = False) -> ImageStore:
        """Reads a whole store and checks schema, sizes and labels.

        Args:
            path: Of the file.
            verify: True holds pixels and labels against their checksums too, as
                all commands do. Older files have none.

        Raises:
            InputError: naming the file, what was expected and what came.
        """
        path = Path(path)
        with open_store(path, FORMAT, SCHEMA_VERSION, _KIND, verify=verify) as file:
            info = RowsInfo.from_attributes(path, file.attributes)
            dataset, checksums = file.rows("image", _SHAPE, 4, "u", 1)
            if dataset.dtype != np.uint8:
                reject_file(path, f"must hold {_SHAPE} as `image`", f"dtype {dataset.dtype}")
            _check_channels(path, dataset.shape)
            with RowReader(file.raw, dataset, np.uint8, checksums) as rows:
                labels = file.labels(len(dataset), checksums.seed)
                _check_splits(path, labels)
                images = rows.result()
        return cls._trusted(images, labels, info, path)


def _check_channels(name: str | os.PathLike, shape: tuple[int, ...]) -> None:
    if shape[3] not in (1, 3):
        reject_file(name, "must hold images of 1 or 3 channels", f"{shape[3]} channels")


def _check_splits(name: str | os.PathLike, labels: Mapping[str, np.ndarray]) -> None:
    if "split" in labels:
        others = set(labels["split"].tolist()) - {*SPLITS, ""}
        if others:
            came = repr(sorted(others, key=str)[0])
            reject_file(name, f"must hold {', '.join(SPLITS)} or '' in label 'split'", came)
