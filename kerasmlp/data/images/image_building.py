"""Image files named like UTKFace's → image store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from kerasmlp.data.datasets.records import IN_ANOTHER_SPLIT, MALFORMED_NAME, NO_SPLIT
from kerasmlp.data.datasets.removal import removal_report, removed_keys
from kerasmlp.data.datasets.utkface import parse_name
from kerasmlp.data.images.image_decoding import decode_image
from kerasmlp.data.images.image_files import ImageFiles
from kerasmlp.data.splits import grouped_split
from kerasmlp.data.stores.image_store import SPLITS, ImageStore
from kerasmlp.data.stores.store_info import RowsInfo
from kerasmlp.utils.checks import (
    check_int,
    check_optional_int,
    check_positive,
    check_seed,
    reject,
    reject_file,
)
from kerasmlp.utils.files import write_json

_LARGEST_SIDE = 4096  # pixels
_FOLDERS = {**{name: name for name in SPLITS}, "val": "validation", "valid": "validation"}


def build_images(
    source: str | os.PathLike,
    *,
    size: int | None = None,
    gray: bool = False,
    split: Sequence[float] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[ImageStore, list[dict]]:
    """Reads images named `<age>_<gender>_<race>_<n>.jpg` into a store.

    Files of one content get one `group`. Where some images are grey and some
    have colours, the grey ones become colour, too: all three channels equal.

    Args:
        source: Folder or zip archive, with folders `train`, `validation` (or `val`) and
            `test` unless `split` is given.
        size: Sides to crop and scale to; None takes images of one size as they are.
        gray: One channel.
        split: Sizes of train, validation and test relative to each other; rows are
            drawn, groups are not split.
        seed: Of the drawing.
        progress: Show a bar.

    Returns:
        The store, and one entry per input with its `key`, the `reason` why it is not in
        the store, or None, and whether it is `gray`.

    Raises:
        InputError: if there are no images, or not of one size.
    """
    if check_optional_int("size", size, minimum=1) and size > _LARGEST_SIDE:
        reject("size", f"must be at most {_LARGEST_SIDE}", size)
    check_seed(check_int("seed", seed, minimum=0))
    if split is not None:
        if len(split) != len(SPLITS):
            reject("split", f"must be {len(SPLITS)} numbers", list(split))
        for share in split:
            check_positive("each number of split", share)
    with ImageFiles(source) as files:
        folders = [_split_of(name) for name in files.names]
        if split is None and not any(folders):
            requirement = f"must hold folders {', '.join(SPLITS)}, or --split must be given"
            reject_file(source, requirement, f"images such as {files.names[0]!r}")
        if split is not None and any(folders):
            first = files.names[next(i for i, folder in enumerate(folders) if folder)]
            reject("--split", f"must be left out where folders say it, as in {first!r}", split)
        kept = _Kept(source, len(files.names))
        entries = [{"key": r.key, "reason": r.removed, "gray": False} for r in files.removed]
        for name, folder in zip(files.names, _bar(folders, progress), strict=True):
            labels, pixels = parse_name(PurePosixPath(name).name), None
            reason = None if labels else MALFORMED_NAME
            if not reason and split is None and folder is None:
                reason = NO_SPLIT
            if not reason:
                try:
                    data = files.read(name)
                except OSError:
                    data = b""
                pixels, reason = decode_image(data, size=size, gray=gray)
            if not reason:
                kept.add(name, pixels, {**labels, "split": folder or "", "path": name}, data)
            is_gray = pixels is not None and pixels.shape[2] == 1
            entries.append({"key": name, "reason": reason, "gray": is_gray})
    if split is None:
        kept.drop_duplicates(entries)
    report = removal_report(entries)
    if not kept.rows:
        reject_file(source, "must hold at least one image to keep", f"none ({report['removed']})")
    columns = {key: [row[key] for row in kept.rows] for key in kept.rows[0]}
    if split is not None:
        columns["split"] = _drawn_splits(columns["group"], split, seed)
    info = RowsInfo(source="UTKFace", removal_report=report)
    store = ImageStore(kept.images[: len(kept.rows)], columns, info, name=source)
    return store, entries


def save_with_removals(
    store: ImageStore, entries: Sequence[dict], path: str | os.PathLike, *, overwrite: bool
) -> None:
    """Writes the store, and `<store>.removal.json` beside it."""
    path = Path(path)
    store.save(path, overwrite=overwrite)
    removals = {**removal_report(entries), "keys": removed_keys(entries)}
    write_json(path.with_name(f"{path.name}.removal.json"), removals)


def what_was_assumed(store: ImageStore, entries: Sequence[dict]) -> list[str]:
    """Sentences about what `build_images` took for granted, for a person to check."""
    sentences = []
    kept = [entry for entry in entries if entry["reason"] is None]
    gray = [entry["key"] for entry in kept if entry["gray"]]
    if gray and store.images.shape[3] == 3:
        sentences.append(
            f"{len(gray)} grey images became colour, as {len(kept) - len(gray)} others are: "
            f"{gray[0]!r} is one (--gray makes all of them grey)"
        )
    folders = [_split_folder(entry["key"]) for entry in kept]
    for folder in sorted({f for f in folders if f and f not in SPLITS}):
        number = folders.count(folder)
        sentences.append(f"{number} images of {folder!r} were taken as {_FOLDERS[folder.lower()]}")
    return sentences


class _Kept:
    """Images of one size, which the first one decides, and their labels."""

    def __init__(self, source: str | os.PathLike, capacity: int):
        self._source, self._capacity = source, capacity
        self.rows: list[dict] = []
        self.images = np.empty(0)
        self._groups: dict[bytes, int] = {}

    def add(self, name: str, pixels: np.ndarray, labels: dict, data: bytes) -> None:
        if not self.rows:
            self.images = self._room(pixels.shape)
        shape = self.images.shape[1:]
        if pixels.shape[:2] != shape[:2]:
            requirement = f"must hold images of {_words(shape)}, as {self.rows[0]['path']!r} is "
            requirement += "(or give --size)"
            reject_file(self._source, requirement, f"{name!r} of {_words(pixels.shape)}")
        if pixels.shape[2] > shape[2]:
            gray = self.images
            self.images = self._room(pixels.shape)
            self.images[: len(self.rows)] = gray[: len(self.rows)]
        self.images[len(self.rows)] = pixels  # one channel becomes three equal ones
        digest = hashlib.sha256(data).digest()
        group = self._groups.setdefault(digest, len(self._groups))
        self.rows.append({**labels, "gender": int(labels["gender"]), "group": group})

    def _room(self, shape: tuple[int, ...]) -> np.ndarray:
        if self._capacity * np.prod(shape) > _memory_bytes():
            requirement = "must hold images that fit into memory together (or give --size)"
            reject_file(self._source, requirement, f"{self._capacity} of {_words(shape)}")
        return np.empty((self._capacity, *shape), np.uint8)

    def drop_duplicates(self, entries: list[dict]) -> None:
        """Takes files out that lie in a later split too: test before validation before train."""
        best: dict[int, int] = {}
        for row in self.rows:
            place = SPLITS.index(row["split"])
            best[row["group"]] = max(place, best.get(row["group"], 0))
        stay = [SPLITS.index(row["split"]) == best[row["group"]] for row in self.rows]
        gone = {row["path"] for row, stays in zip(self.rows, stay, strict=True) if not stays}
        if not gone:
            return
        for entry in entries:
            if entry["key"] in gone:
                entry["reason"] = IN_ANOTHER_SPLIT
        self.images = self.images[: len(self.rows)][stay]
        self.rows = [row for row, stays in zip(self.rows, stay, strict=True) if stays]


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _words(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height}×{width} pixels, {'grey' if channels == 1 else 'colour'}"


def _split_of(name: str) -> str | None:
    folder = _split_folder(name)
    return folder and _FOLDERS[folder.lower()]


def _split_folder(name: str) -> str | None:
    folders = [part for part in PurePosixPath(name).parts[:-1] if part.lower() in _FOLDERS]
    return folders[-1] if folders else None


def _drawn_splits(groups: Sequence[int], shares: Sequence[float], seed: int) -> np.ndarray:
    train, validation, test = (share / sum(shares) for share in shares)
    rest, tested = grouped_split(groups, test, seed)
    _, validated = grouped_split(np.array(groups)[rest], validation / (train + validation), seed)
    splits = np.full(len(groups), "train", object)
    splits[tested] = "test"
    splits[rest[validated]] = "validation"
    return splits.astype(str)


def _bar(items: Sequence, progress: bool):
    from tqdm import tqdm

    return tqdm(items, unit="img", disable=None if progress else True)
