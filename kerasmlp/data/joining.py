"""Several stores as one, to learn from all at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kerasmlp.data.datasets.records import joined_groups
from kerasmlp.data.examples import Examples
from kerasmlp.data.labelled import JOINED_FROM, Columns, has_label
from kerasmlp.data.labels import UNKNOWN, is_unknown
from kerasmlp.data.row_hashes import row_hashes
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.label_columns import joined_column
from kerasmlp.data.targets import choose_age_target
from kerasmlp.utils.checks import InputError, reject

StorePaths = str | os.PathLike | Sequence[str | os.PathLike]
"""Of one store, or of several that are joined."""

_GROUP = "group"


def join_stores(stores: Sequence[EmbeddingStore], *, group: str | None = None) -> EmbeddingStore:
    """Puts stores of one embedder together; a label that one of them lacks is unknown there.

    Groups of two stores are different ones, whatever their numbers; those that are called the
    same in words are the same. Rows with the very same embedding are one group, in whichever
    stores they are, so that no split has one on either side. A column that is text here
    and numbers there, age groups of two kinds, and a `fold` that one store lacks
    are left out; `store.info.joined` says why, and how many rows two stores share.

    Args:
        stores: One or more. One comes back as it is.
        group: Another column than `group` whose rows are never split, of those that follow.

    Returns:
        All rows, in this order, with a column `joined_from` that names the file of each.

    Raises:
        InputError: if widths, embedders or norms differ.

    Example:

    >>> a = EmbeddingStore(np.eye(3)[:2], {"gender": [0, 1], "group": [7, 8]}, name="a.h5")
    >>> b = EmbeddingStore(np.eye(3)[1:], {"hair": ["r", "b"], "group": [7, 8]}, name="b.h5")
    >>> both = join_stores([a, b])
    >>> both.labels["gender"], both.labels["hair"], both.labels["group"]
    (array([ 0,  1, -1, -1], dtype=int8), array(['', '', 'r', 'b'], dtype='<U1'), \
array([0, 1, 1, 2]))
    """
    if not stores:
        reject("stores", "must hold at least one store", list(stores))
    if len(stores) == 1:
        return stores[0]
    names = [str(store.name) for store in stores]
    rows = [len(store) for store in stores]
    within = [name for store in stores for name in np.unique(store.labels.get(JOINED_FROM, []))]
    files = _file_names(names, within)
    labels: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    for key in dict.fromkeys(k for store in stores for k in store.labels if has_label(store, k)):
        parts = _parts(stores, key)
        if key in (_GROUP, group, JOINED_FROM):
            continue
        if why := _unlike(key, parts, files):
            left_out[key] = why
        else:
            parts = _with_first_views(stores, parts) if key == "view" else parts
            try:
                labels[key] = joined_column(names, key, parts, rows)
            except InputError as error:
                left_out[key] = str(error)
    origin = np.repeat(np.arange(len(stores)), rows)
    half = stores[0].info.normalized
    hashes = np.concatenate([row_hashes(store.embeddings, half=half) for store in stores])
    same, repeated = _in_several(hashes, origin), len(np.unique(hashes)) < len(hashes)
    for key in dict.fromkeys((_GROUP, group)):
        parts = [] if key is None else _parts(stores, key)
        if any(part is not None for part in parts) or (key == _GROUP and repeated):
            labels[key] = _groups(parts, rows, hashes)
    of_files = zip(_parts(stores, JOINED_FROM), rows, files, strict=True)
    labels[JOINED_FROM] = np.concatenate(
        [np.full(n, f) if p is None else p for p, n, f in of_files]
    )
    whole = EmbeddingStore.concatenate(stores, names=names, labels=labels)
    told = [{"file": file, "rows": count} for file, count in zip(files, rows, strict=True)]
    joined = {"stores": told, "same_rows": same, "left_out": left_out}
    whole.name, whole.info = " and ".join(files), replace(whole.info, joined=joined)
    return whole


def open_stores(paths: StorePaths, *, group: str | None = None) -> EmbeddingStore:
    """Reads a store, or several, which are joined, against their checksums.

    Args:
        paths: Of one or more.
        group: As of `join_stores`.

    Raises:
        InputError: if a file is none, given twice, or does not belong to the others.
    """
    return join_stores(open_each(paths), group=group)


def open_each(paths: StorePaths) -> list[EmbeddingStore]:
    """Reads a store, or several, against their checksums, and leaves them apart."""
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths or len({os.path.realpath(path) for path in paths}) < len(paths):
        reject("store", "must name one or more files, each once", [str(p) for p in paths])
    return [EmbeddingStore.open(path, verify=True) for path in paths]


def absolute(paths: StorePaths) -> str | list[str]:
    """Where a store is, or several are, for another process."""
    if isinstance(paths, str | os.PathLike):
        return os.path.abspath(paths)
    return [os.path.abspath(path) for path in paths]  # the names of links are their names


def _parts(stores: Sequence[EmbeddingStore], key: str) -> list[np.ndarray | None]:
    """A column of each store, None where it is not there or says nothing."""
    return [store.labels[key] if has_label(store, key) else None for store in stores]


def _file_names(names: Sequence[str], within: Sequence[str]) -> list[str]:
    """What files are called without their folders; where two are called the same, those that
    are joined already among them, numbered."""
    found = [Path(name).name for name in names]
    known = [*found, *within]
    return [f"{f} ({k + 1})" if known.count(f) > 1 else f for k, f in enumerate(found)]


def _unlike(key: str, parts: Sequence[np.ndarray | None], files: Sequence[str]) -> str | None:
    """Why a column of several stores cannot be one, in words."""
    there = [(file, part) for file, part in zip(files, parts, strict=True) if part is not None]
    if key == "fold" and len(there) < len(parts):
        return f"only {' and '.join(file for file, _ in there)} has it"
    texts, numbers = ([f for f, p in there if (p.dtype.kind == "U") == text] for text in (1, 0))
    if texts and numbers:
        return f"it is text in {', '.join(texts)}, numbers in {', '.join(numbers)}"
    if key == "age_group" and not numbers and len(there) > 1:
        whole = Columns({key: np.concatenate([part for _, part in there])})
        try:
            choose_age_target(whole, key, None, by_years=True)
        except InputError:
            return f"it holds other age groups in {' than in '.join(file for file, _ in there)}"
    return None


def _with_first_views(
    stores: Sequence[EmbeddingStore], parts: Sequence[np.ndarray | None]
) -> list[np.ndarray | None]:
    """Where one store has views of faces, each row of another is the first of its face."""
    unknown = (Examples(s.embeddings, np.full(len(s), UNKNOWN), s.labels) for s in stores)
    if all(examples.view_starts is None for examples in unknown):
        return list(parts)
    firsts = (np.zeros(len(store), np.int8) for store in stores)
    return [f if part is None else part for part, f in zip(parts, firsts, strict=True)]


def _in_several(hashes: np.ndarray, origin: np.ndarray) -> int:
    """How many rows are in an earlier store, too."""
    codes = np.unique(hashes, return_inverse=True)[1]
    first = np.full(codes.max() + 1, origin.max())
    np.minimum.at(first, codes, origin)
    return int((origin > first[codes]).sum())


def _groups(
    parts: Sequence[np.ndarray | None], rows: Sequence[int], hashes: np.ndarray
) -> np.ndarray:
    """Numbers of groups that no split may cross."""
    found: list[str | None] = []
    for number, (part, count) in enumerate(zip(parts, rows, strict=True)):
        if part is None:
            found += [None] * count
            continue
        of_store = "called " if part.dtype.kind == "U" else f"{number} "
        unknown = is_unknown(part).tolist()
        values = zip(part.tolist(), unknown, strict=True)
        found += [None if nothing else f"{of_store}{value}" for value, nothing in values]
    return joined_groups(found, hashes.tolist())
