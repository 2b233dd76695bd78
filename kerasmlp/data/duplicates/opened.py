"""Stores that are searched together: their rows, which of them count, and their groups."""

import os
from collections.abc import Sequence

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.labels import UNKNOWN, is_unknown
from kerasmlp.data.stores.embedding_store import EmbeddingStore, check_alike
from kerasmlp.data.stores.stored_rows import StoredRows
from kerasmlp.utils.checks import reject

Store = EmbeddingStore | StoredRows | str | os.PathLike
"""One, in memory or opened, or its file."""


def opened_rows(stores: Store | Sequence[Store]) -> list[StoredRows]:
    """The rows of stores that belong together, each once."""
    given = [stores] if isinstance(stores, Store) else list(stores)
    which = [os.path.realpath(s) if isinstance(s, str | os.PathLike) else id(s) for s in given]
    if not given or len(set(which)) < len(which):
        reject("store", "must name one or more files, each once", [str(s) for s in given])
    parts = [s if isinstance(s, StoredRows) else StoredRows(s) for s in given]
    check_alike(parts, [part.name for part in parts])
    return parts


def first_views(part: StoredRows) -> np.ndarray:
    """Mask of the rows that are faces as they are, not views of those before."""
    unknown = np.full(len(part), UNKNOWN)
    starts = Examples(part.values, unknown, part.labels).view_starts
    return np.ones(len(part), bool) if starts is None else np.isin(np.arange(len(part)), starts)


def known_groups(parts: Sequence[StoredRows]) -> np.ndarray:
    """Numbers of groups; those named in words are the same in all stores, as `join_stores` has it.

    A row without a group is one of its own.
    """
    words = [p.labels["group"] for p in parts if _is_text(p.labels.get("group"))]
    names = np.unique(np.concatenate(words)) if words else np.empty(0, str)
    found, used = [], len(names)
    for part in parts:
        groups = part.labels.get("group", np.full(len(part), UNKNOWN))
        if _is_text(groups):
            codes = np.searchsorted(names, groups)
        else:
            codes = used + np.unique(groups, return_inverse=True)[1]
            used += len(part)
        alone = is_unknown(groups)
        codes[alone] = used + np.arange(alone.sum())
        used += int(alone.sum())
        found.append(codes)
    return np.concatenate(found)


def _is_text(column: np.ndarray | None) -> bool:
    return column is not None and column.dtype.kind == "U"
