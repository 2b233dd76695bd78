"""Which array of a file is the embedding: by its name, and else only if nothing else can be."""

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasmlp.data.importing.column_families import Family, families_of, named_columns
from kerasmlp.data.importing.import_notes import ImportNotes
from kerasmlp.data.importing.vector_cells import UnreadCells, looks_like_vectors, rows_of
from kerasmlp.data.sources.source import DROPPED, SourceArrays, require_size
from kerasmlp.data.stores.streamed_rows import StreamedRows, blocks_of
from kerasmlp.utils.checks import reject_file

_FIRST = ("embedding", "embeddings", "emb", "embs")
_SECOND = ("features", "feature", "feats", "feat", "x")
_SECOND_FAMILIES = ("e", "", *_SECOND)
_SAYS_EMBEDDING = re.compile(r"(^|[^a-z])(emb|embs|embedding|embeddings)([^a-z]|$)")
_SOMETHING_ELSE = re.compile(
    r"(^|[^a-z])(y|b?box|boxes|bboxes|rect|landmarks?|lmk|kps|keypoints?|points?|pose|mask|masks|"
    r"images?|pixels?|class|classes|onehot|one|hot|labels?|targets?|prob|probs|probabilities|"
    r"logits?|scores?|preds?|predictions?|ids?|tokens?|roi|rois|locs?|coords?|coordinates?|corners?|xyxy|xywh|ltrb|crops?|q|age|gender|sex|fold|group|umap|tsne|spatial)"
    r"([^a-z]|$)"
)
_FEWEST_COLUMNS = 8
"""Fewer columns that nobody calls an embedding may be anything: corners, quaternions, sizes."""
_CELL_BYTES = 250
"""What a cell takes besides its numbers, as a text and an array."""
_OPTION = "(--embedding NAME names an array, --columns NAMES names columns)"
_FEWEST_TRIED, _ROWS_TRIED = 20, 1000


def choose_embedding(
    source: SourceArrays,
    labels: Mapping[str, Any],
    notes: ImportNotes,
    *,
    name: str | None = None,
    columns: str | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The embeddings, and the columns that are left.

    Args:
        labels: Names that are labels, by their meaning or by the user's word.
        name: What the user called the array, or what precedes the number of
            its columns.
        columns: Or the columns that the user listed, see `named_columns`.

    Raises:
        InputError: if none can be told, or the one that is named cannot be read.
    """
    path, left = notes.path, dict(source.columns)
    if columns is not None:
        family = named_columns(path, source, columns)
        if meant := [c for c in family.columns if c in labels]:
            expected = "must have no label among the columns of the embedding (--columns)"
            reject_file(path, expected, repr(meant[0]))
        notes.inputs = family.columns
    elif name is not None and (name in left or name in source.left_out):
        return _take(source, left, name, notes)
    else:
        others = {k: v for k, v in left.items() if k not in labels and k not in source.index}
        left_out = {k: why for k, why in source.left_out.items() if k not in labels}
        families = families_of(others, left_out)
        if name is not None:
            families = [f for f in families if name in (f.prefix, f.name)]
            family = families[0] if len(families) == 1 else None
            if family is None:
                reject_file(path, f"must hold embeddings as {name!r}", _listed(source))
        else:
            chosen = _by_name(source, others, families, notes)
            chosen = chosen or _the_only_one(source, others, families, notes)
            if isinstance(chosen, str):
                return _take(source, left, chosen, notes)
            family = chosen
    embeddings = family.stacked(path, source, labels, notes)
    for column in family.columns:
        del left[column]
    return embeddings, left


def _by_name(
    source: SourceArrays,
    columns: Mapping[str, np.ndarray],
    families: list[Family],
    notes: ImportNotes,
) -> str | Family | None:
    """What is called an embedding; the plainer name goes first, two alike are a question."""
    order = [*columns, *(name for name, why in source.left_out.items() if why != DROPPED)]
    arrays = [name for name, values in columns.items() if _is_vector(values)]
    first = [n for n in order if n.lower() in _FIRST]
    first += [f for f in families if f.name in _FIRST]
    says = [n for n in arrays if _SAYS_EMBEDDING.search(n.lower())]
    says += [f for f in families if _SAYS_EMBEDDING.search(f.name) and f.whole]
    second = [n for n in order if n.lower() in _SECOND]
    second = [n for n in second if n not in columns or not _one_number(columns[n])]
    coordinates = any(f.name == "y" for f in families)
    second += [
        f for f in families
        if f.name in _SECOND_FAMILIES and not (f.name == "x" and coordinates)
        and (f.name or _is_header(columns, f))
    ]  # fmt: skip
    if says:  # one text column may say `embedding` beside the columns that are it
        says += [f for f in second if isinstance(f, Family) and f.whole]
    if any(n == "X" for n in second):  # AnnData: the measures, beside what was made of them
        made = [n for n in arrays if n.startswith("X_") and not _SOMETHING_ELSE.search(n.lower())]
        second += made
    for found in (first, says, second):
        if len(found) > 1:
            came = ", ".join(sorted(str(item) for item in found))
            reject_file(notes.path, f"must hold one embedding {_OPTION}", came)
        if found:
            return found[0]
    return None


def _the_only_one(
    source: SourceArrays,
    columns: Mapping[str, np.ndarray],
    families: list[Family],
    notes: ImportNotes,
) -> str | Family:
    """The one array or run of columns that can be nothing else."""
    found: list[str | Family] = [
        name for name, values in columns.items()
        if _is_vector(values) and not _SOMETHING_ELSE.search(name.lower()) and not _shares(values)
    ]  # fmt: skip
    coordinates = any(f.name == "y" for f in families)
    families = [f for f in families if not (f.name == "x" and coordinates)]
    if source.table or not any(v.ndim > 1 for v in columns.values()):
        found += [
            f for f in families
            if f.whole and not _SOMETHING_ELSE.search(f.name)
            and (len(f.columns) >= _FEWEST_COLUMNS or f.positional or source.items)
        ]  # fmt: skip
        found = [f for f in found if isinstance(f, str) or _are_measures(columns, f)]
    if len(found) == 1 and (
        not isinstance(found[0], str) or columns[found[0]].dtype.kind not in "iu"
    ):
        notes.doubt(f"took {str(found[0])!r} for the embedding, as nothing else can be")
        return found[0]
    requirement = f"must hold embeddings as 'embedding' or e0, e1, … {_OPTION}"
    reject_file(notes.path, requirement, _listed(source, [str(f) for f in found]))


def _is_header(columns: Mapping[str, np.ndarray], family: Family) -> bool:
    """Whether bare numbers are names, and no first row of values, which mostly is out of order."""
    members = set(family.columns)
    order = [name for name in columns if name in members]
    return order == list(family.columns) and (not family.whole or _are_measures(columns, family))


def _are_measures(columns: Mapping[str, np.ndarray], family: Family) -> bool:
    kinds = {columns[name].dtype.kind for name in family.columns}
    return "f" in kinds and kinds <= set("iuf")


def _is_vector(values: np.ndarray) -> bool:
    if values.ndim == 1:
        return values.dtype.kind in "USO" and looks_like_vectors(values)
    return values.dtype.kind in "fiu" and _width_axes(values) == 1 and not _one_number(values)


def _width_axes(values: np.ndarray) -> int:
    """How many axes besides the rows are more than 1 wide; a width of 1 counts as one."""
    return sum(axis != 1 for axis in values.shape[1:]) or int(values.ndim > 1)


def _one_number(values: np.ndarray) -> bool:
    return values.dtype.kind in "biuf" and all(axis == 1 for axis in values.shape[1:])


def _shares(values: np.ndarray) -> bool:
    """Whether rows are one-hot labels or probabilities: shares of one."""
    if values.ndim < 2 or values.dtype.kind not in "iuf" or not values.size:
        return False
    with np.errstate(all="ignore"):
        if not (np.abs(values[:1000].sum(axis=-1) - 1) < 1e-3).all():
            return False
        return all(bool(block.min() >= 0) for _, block in blocks_of(values))


def _take(
    source: SourceArrays, left: dict[str, np.ndarray], name: str, notes: ImportNotes
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The embeddings of one array, or why it holds none."""
    expected = f"must hold embeddings of one width in {name!r} {_OPTION}"
    if name not in left:
        reject_file(notes.path, expected, source.left_out[name])
    values = left.pop(name)
    if isinstance(values, StreamedRows):
        dtype = str(values.stored_dtype)
        notes.embedding = {"from": name, "shape": list(values.shape), "dtype": dtype}
        return values, left
    shape, dtype = values.shape, values.dtype
    if values.ndim == 1 and dtype.kind in "USOV":
        size = os.path.getsize(notes.path)
        require_size(notes.path, size, _CELL_BYTES * len(values), f"the cells of {name!r}")
        try:
            values = rows_of(values)
        except UnreadCells as why:
            reject_file(notes.path, expected, str(why))
        if dtype.kind in "SOV" and values.dtype.kind == "f" and values.base is not None:
            notes.doubt(f"read the bytes in {name!r} as {values.dtype}, {values.shape[1]} per row")
    if np.ma.isMaskedArray(values):
        reject_file(notes.path, expected, "gaps")
    if values.ndim < 2 or values.dtype.kind not in "fiu" or _width_axes(values) != 1:
        came = f"shape {shape}, dtype {dtype}"
        if values.ndim > 2:
            came += ": images or other arrays, but no embedding"
        reject_file(notes.path, expected, came)
    notes.embedding = {"from": name, "shape": list(shape), "dtype": str(dtype)}
    return values.reshape(len(values), max(values.shape[1:])), left


def doubt_whole_numbers(embeddings: np.ndarray, notes: ImportNotes) -> None:
    """Says which few columns hold whole numbers where others do not, as labels among them do."""
    some = embeddings[:_ROWS_TRIED]
    if len(some) < _FEWEST_TRIED:
        return
    whole = (some == np.rint(some)).all(axis=0) & (np.abs(some).max(axis=0) >= 1)
    places = np.flatnonzero(whole & (np.ptp(some, axis=0) > 0))
    if 0 < len(places) <= len(whole) // 4:
        shown = ", ".join(map(str, places[:3])) + (" and more" if len(places) > 3 else "")
        notes.doubt(f"took whole numbers for part of the embedding, in dimension {shown}: labels?")


def _listed(source: SourceArrays, found: list[str] | None = None) -> str:
    kinds = [f"{k} {v.dtype}{list(v.shape)}" for k, v in source.columns.items()]
    if found and len(found) > 1:
        return ", ".join([k for k in kinds if k.split(" ")[0] in found] or found)
    kinds += [f"{k} ({why})" for k, why in source.left_out.items()]
    return (
        ", ".join(kinds) if len(kinds) <= 20 else f"{len(kinds)} columns: {', '.join(kinds[:5])}, …"
    )
