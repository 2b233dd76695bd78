"""Image files of a data set, in any of its layouts → image store."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import numpy as np

from kerasmlp.data.datasets.records import (
    IN_ANOTHER_SPLIT,
    NO_SPLIT,
    Record,
    joined_groups,
    label_columns,
    needs_image,
)
from kerasmlp.data.datasets.removal import removal_report
from kerasmlp.data.images.image_decoding import decode_image
from kerasmlp.data.images.image_files import ImageFiles
from kerasmlp.data.layouts import LAYOUTS
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
from kerasmlp.utils.memory import memory_bytes

_LARGEST_SIDE = 4096  # pixels
_FOLDERS = {**{name: name for name in SPLITS}, "val": "validation", "valid": "validation"}


def build_images(
    source: str | os.PathLike,
    *,
    layout: str = "utkface",
    size: int | None = None,
    gray: bool = False,
    split: Sequence[float] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[ImageStore, list[dict]]:
    """Reads the images of a data set, and what is known of them, into a store.

    Files of one content or one person get one `group`. Where some images are
    grey and some have colours, the grey ones become colour, too: all three
    channels equal.

    Args:
        source: Folder, table or zip archive, with folders `train`, `validation` (or
            `val`) and `test`, or a column `split`, unless `split` is given.
        layout: One of `LAYOUTS`; of an archive `utkface` or `folder`.
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
    check_optional_int("size", size, minimum=1, maximum=_LARGEST_SIDE)
    check_seed(check_int("seed", seed, minimum=0))
    if split is not None and len(split) != len(SPLITS):
        reject("split", f"must be {len(SPLITS)} numbers", list(split))
    for share in split or ():
        check_positive("each number of split", share)
    decode = functools.partial(decode_image, size=size, gray=gray)
    with ImageFiles(source, layout) as files:
        told = _told_splits(source, files.records, split)
        kept, entries = _read(source, files, told, decode, progress)
    if not kept.rows:
        removed = removal_report(entries)["removed"]
        reject_file(source, "must hold at least one image to keep", f"none ({removed})")
    records, splits, digests = zip(*kept.rows, strict=True)
    groups = joined_groups([record.group for record in records], digests)
    if split is not None:
        splits = _drawn_splits(groups, split, seed)
    stay = _in_no_later_split(splits, digests)  # nor are drawn ones, as equal files are one group
    of_kept = [entry for entry in entries if entry["reason"] is None]
    for place in np.flatnonzero(~stay):
        of_kept[place]["reason"] = IN_ANOTHER_SPLIT
    of, report = LAYOUTS[layout], removal_report(entries)
    info = RowsInfo(source=of.source, licence=of.licence, removal_report=report)
    labels = {**label_columns(records), "split": splits, "group": groups}
    store = ImageStore(kept.images[: len(records)], labels, info, name=source)
    return store if stay.all() else store.subset(stay), entries


def _told_splits(
    source: str | os.PathLike, records: Sequence[Record], split: Sequence[float] | None
) -> list[str | None]:
    """The split of each record, "" if it is to be drawn: either all are told or none."""
    told = [_split_of(source, record) for record in records]
    images = [folder for record, folder in zip(records, told, strict=True) if needs_image(record)]
    if split is None and not any(images):
        requirement = f"must hold folders {', '.join(SPLITS)}, or --split must be given"
        reject_file(source, requirement, f"images such as {records[0].key!r}")
    if split is not None and any(images):
        first = next(r.key for r, folder in zip(records, told, strict=True) if folder)
        reject("--split", f"must be left out where folders say it, as in {first!r}", split)
    return told if split is None else [""] * len(told)


def _read(
    source: str | os.PathLike,
    files: ImageFiles,
    splits: Sequence[str | None],
    decode: Callable[[bytes], tuple[np.ndarray | None, str | None]],
    progress: bool,
) -> tuple[_Kept, list[dict]]:
    """The images that can be read, and an entry for each input."""
    kept, entries = _Kept(source, sum(map(needs_image, files.records))), []
    for record, split in zip(_bar(files.records, progress), splits, strict=True):
        reason, pixels = record.removed, None
        if needs_image(record):
            reason = NO_SPLIT
            if split is not None:
                data = files.read(record)
                pixels, reason = decode(data)
            reason = reason or record.removed
        if not reason:
            kept.add(record, split, pixels, hashlib.sha256(data).hexdigest())
        is_gray = pixels is not None and pixels.shape[2] == 1
        entries.append({"key": record.key, "reason": reason, "gray": is_gray})
    return kept, entries


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
    lie_in: dict[int, set[str]] = {}
    for group, split in zip(store.labels["group"], store.labels["split"], strict=True):
        lie_in.setdefault(int(group), set()).add(str(split))
    if torn := sum(len(splits) > 1 for splits in lie_in.values()):
        sentences.append(f"images of one `group`, as of one person, lie in several splits: {torn}")
    return sentences


class _Kept:
    """Images of one size, which the first one decides; record, split and digest of each."""

    def __init__(self, source: str | os.PathLike, capacity: int):
        self._source, self._capacity = source, capacity
        self.rows: list[tuple[Record, str, str]] = []
        self.images = np.empty(0)

    def add(self, record: Record, split: str, pixels: np.ndarray, digest: str) -> None:
        if not self.rows:
            self.images = self._room(pixels.shape)
        shape, count = self.images.shape[1:], len(self.rows)
        if pixels.shape[:2] != shape[:2]:
            requirement = f"must hold images of {_words(shape)}, as {self.rows[0][0].key!r} is "
            requirement += "(or give --size)"
            reject_file(self._source, requirement, f"{record.key!r} of {_words(pixels.shape)}")
        if pixels.shape[2] > shape[2]:
            gray = self.images
            self.images = self._room(pixels.shape)
            self.images[:count] = gray[:count]
        self.images[count] = pixels  # one channel becomes three equal ones
        self.rows.append((record, split, digest))

    def _room(self, shape: tuple[int, ...]) -> np.ndarray:
        if self._capacity * np.prod(shape) > memory_bytes():
            requirement = "must hold images that fit into memory together (or give --size)"
            reject_file(self._source, requirement, f"{self._capacity} of {_words(shape)}")
        return np.empty((self._capacity, *shape), np.uint8)


def _in_no_later_split(splits: Sequence[str], digests: Sequence[str]) -> np.ndarray:
    """Mask of the files that lie in no later split too: test before validation before train."""
    places, last = [SPLITS.index(split) for split in splits], {}
    for place, digest in zip(places, digests, strict=True):
        last[digest] = max(place, last.get(digest, 0))
    return np.array([p == last[digest] for p, digest in zip(places, digests, strict=True)])


def _words(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height}×{width} pixels, {'grey' if channels == 1 else 'colour'}"


def _split_of(source: str | os.PathLike, record: Record) -> str | None:
    """The split that a table or else a folder says."""
    told = str(record.extra.get("split", "")) or _split_folder(record.key)
    if told and told.lower() not in _FOLDERS:
        reject_file(source, f"must hold {', '.join(SPLITS)} or nothing as split", repr(told))
    return told and _FOLDERS[told.lower()]


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
