import os
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from kerasmlp.data.stores.row_store import Each, Judge, RowStore
from kerasmlp.data.stores.store_info import RowsInfo
from kerasmlp.utils.checks import reject_file

SPLITS = ("train", "validation", "test")
_SHAPE = "uint8 images (rows, height, width, 1 or 3 channels)"


class ImageStore(RowStore):
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

    FORMAT = "kerasmlp.image_store"
    KIND, COMMAND = "an image store", "build-images"
    ROWS = ("image", _SHAPE, 4, "u", np.uint8)

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
        super().__init__(np.ascontiguousarray(images), labels, info, name, images.dtype)
        _check_splits(name, self.labels)

    @property
    def images(self) -> np.ndarray:
        return self.values

    def __repr__(self) -> str:
        height, width, channels = self.images.shape[1:]
        what = f"{height}×{width} pixels, {'grey' if channels == 1 else 'colour'}"
        return f"ImageStore of {len(self):,} images, {what}, {self._words()}"

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

    @classmethod
    def watched(cls, path: Any, dataset: h5py.Dataset, info: RowsInfo) -> tuple[Each, Judge]:
        if dataset.dtype != np.uint8:
            reject_file(path, f"must hold {_SHAPE} as `image`", f"dtype {dataset.dtype}")
        _check_channels(path, dataset.shape)
        return lambda start, block: None, lambda labels: _check_splits(path, labels)


def _check_channels(name: str | os.PathLike, shape: tuple[int, ...]) -> None:
    if shape[3] not in (1, 3):
        reject_file(name, "must hold images of 1 or 3 channels", f"{shape[3]} channels")


def _check_splits(name: Any, labels: Mapping[str, np.ndarray]) -> None:
    others = set(labels["split"].tolist()) - {*SPLITS, ""} if "split" in labels else ()
    if others:
        came = repr(sorted(others, key=str)[0])
        reject_file(name, f"must hold {', '.join(SPLITS)} or '' in label 'split'", came)
