"""Copies of stores in which near-duplicates share a group."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from kerasmlp.data.duplicates.duplicate_rows import NearDuplicates
from kerasmlp.data.duplicates.opened import Store, opened_rows
from kerasmlp.data.stores.store_paths import check_store_path
from kerasmlp.utils.checks import reject
from kerasmlp.utils.files import require_file_place, require_free


def check_copies(paths: Sequence[str | os.PathLike], stores: Sequence[Store]) -> None:
    """Rejects paths at which copies of stores cannot be written."""
    if len(paths) != len(stores) or len({os.path.realpath(path) for path in paths}) < len(paths):
        requirement = f"must name a new file for each of the {len(stores)} stores"
        reject("write_groups", requirement, [str(path) for path in paths])
    for path in paths:
        require_file_place(path)
        require_free(path)
        check_store_path(path, force=False)


def write_groups(
    found: NearDuplicates, stores: Sequence[Store], paths: Sequence[str | os.PathLike]
) -> None:
    """Writes copies of stores whose column `group` says which rows are nearly the same.

    Rows of one group stay in one, and groups that pairs connect become one. Of several stores
    groups are named in words, by which `join_stores` knows them for the same.

    Args:
        found: In these stores.
        stores: As they were searched.
        paths: Of the new files, one for each.

    Raises:
        InputError: if a file is there already.

    Example:

    >>> import tempfile
    >>> from kerasmlp import EmbeddingStore, near_duplicates
    >>> store = EmbeddingStore(np.eye(3)[[0, 1, 0, 2]], {"group": [5, 6, 7, 6]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_groups(near_duplicates(store), [store], [f"{folder}/new.h5"])
    ...     EmbeddingStore.open(f"{folder}/new.h5").labels["group"]
    array([0, 1, 0, 1])
    """
    check_copies(paths, stores)
    codes = np.unique(found.groups(), return_inverse=True)[1]
    groups = codes if len(stores) == 1 else np.strings.add("g", codes.astype(str))
    parts = opened_rows(stores)
    for part, start, path in zip(parts, found.starts, paths, strict=False):
        part.save_as(path, {**part.labels, "group": groups[start : start + len(part)]})
