"""Arrays of other programs → EmbeddingStore: which column means what, and a report of it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kerasmlp.data.importing.changed_rows import halved, norms_checked
from kerasmlp.data.importing.code_names import name_codes
from kerasmlp.data.importing.embedding_choice import choose_embedding, doubt_whole_numbers
from kerasmlp.data.importing.import_notes import ImportNotes, Say
from kerasmlp.data.importing.label_meaning import (
    GENDER_CODE_CHOICES,
    cannot_mean,
    read_age_groups,
    read_ages,
    read_genders,
    read_label,
    read_meant,
)  # fmt: skip
from kerasmlp.data.sources.source import DROPPED, most_bytes
from kerasmlp.data.sources.source_arrays import SourceArrays, read_source
from kerasmlp.data.stores.embedding_store import EmbeddingStore, lost_columns
from kerasmlp.data.stores.store_info import StoreInfo, made_of_columns
from kerasmlp.utils.checks import InputError, check_choice, reject_file

LABEL_NAMES = {
    "age_years": ("age_years", "age", "years"),
    "age_group": ("age_group",),
    "gender": ("gender", "sex"),
    "fold": ("fold",),
    "group": ("group",),
}


@dataclass(frozen=True)
class ColumnNames:
    """What the user said about columns; the rest is found by name.

    Attributes:
        embedding: Name of the array, or what the columns of one number have
            before their digit (`e` for e0, e1, …).
        labels: Meaning (`age_years`, `gender`, …, or a new name) to column.
        drop: Columns to leave out, unread.
        numbers: Or the columns of one number that make up the embedding:
            `e0,e1,e2`, or `e0:e127` from one to another in the file's order.
    """

    embedding: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    numbers: str | None = None


def import_embeddings(
    path: str | os.PathLike,
    *,
    columns: ColumnNames | None = None,
    gender_codes: str = "auto",
    normalize: bool = False,
    float16: bool = False,
    info: Mapping[str, Any] | None = None,
    strict: bool = False,
    say: Say = lambda text: None,
) -> EmbeddingStore:
    """Reads embeddings and labels from a file of another program, or from a store.

    Args:
        path: As `read_source` takes it; `store.info.import_report` says what was
            taken from it.
        columns: Names that are not found by themselves.
        gender_codes: `"male0"`, `"female0"`, `"words"`, or `"auto"`: what the
            file's attribute `gender_codes` says, else words for text and 0
            male, 1 female for numbers.
        normalize: Whether to divide every embedding by its norm; if not,
            it is recorded whether they have norm 1.
        float16: Whether to round to half precision.
        info: Fields of `StoreInfo` that go before the file's own.
        strict: Whether to refuse what leaves a doubt.
        say: Receives one sentence for each doubt.

    Raises:
        InputError: naming the file, what was expected and what came.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/a.npz", x=np.eye(2), sex=["f", "m"], age=[30, -1])
    ...     store = import_embeddings(f"{folder}/a.npz")
    >>> store.labels
    {'gender': array([1, 0], dtype=int8), 'age_years': array([30., nan], dtype=float32)}
    """
    check_choice("gender_codes", gender_codes, GENDER_CODE_CHOICES)
    columns, notes = columns or ColumnNames(), ImportNotes(path, say, strict=strict)
    source = read_source(path, columns.drop)
    meant = _meant_labels(path, source, columns, notes)
    embeddings, left = choose_embedding(
        source, [*meant.values(), *columns.labels.values()], notes,
        name=columns.embedding, columns=columns.numbers,
    )  # fmt: skip
    if not notes.inputs:  # whoever names columns knows them
        doubt_whole_numbers(embeddings, notes)
    if lost := lost_columns(embeddings):
        notes.doubt(
            f"took numbers that float32 does not tell apart in dimension {lost[0]}: constant"
        )
    left = name_codes(source, left, meant, gender_codes, notes)
    labels = _read_labels(path, source, left, meant, embeddings.shape, notes)
    labels = _meanings(path, labels, gender_codes, source.attributes.get("gender_codes"), notes)
    found = _checked_info(path, source.attributes, info or {})
    if named := made_of_columns(notes.inputs):
        found = replace(found, preprocessing=(found.preprocessing or {}) | named)
    claimed = "normalized" in source.attributes and found.normalized
    embeddings, normalized = norms_checked(path, embeddings, normalize, claimed, notes)
    embeddings = halved(path, embeddings) if float16 else embeddings
    store = EmbeddingStore(embeddings, labels, replace(found, normalized=normalized), name=path)
    report = {"sources": [notes.report(len(store), store.labels)]}
    store.info = replace(store.info, import_report=report)
    return store


def _meanings(
    path: Any, labels: dict[str, np.ndarray], codes: str, said: Any, notes: ImportNotes
) -> dict[str, np.ndarray]:
    """Labels with genders, ages and age groups in our own codes."""
    if "gender" in labels:
        labels["gender"] = read_genders(path, labels["gender"], codes, said, notes)
    if "age_years" in labels:
        labels.update(read_ages(path, labels.pop("age_years"), "age_group" in labels, notes))
    if "age_group" in labels:
        labels["age_group"] = read_age_groups(labels["age_group"], notes)
    return labels


def _checked_info(path: Any, said: Mapping[str, Any], asked: Mapping[str, Any]) -> StoreInfo:
    """What a file says of itself, and the user, who must not say another embedder."""
    found = StoreInfo.from_attributes(path, said)
    for key in ("embedder", "embedder_sha256"):
        if asked.get(key) is not None and getattr(found, key) not in (None, asked[key]):
            came = getattr(found, key)
            reject_file(path, f"must hold embeddings of {key} {asked[key]!r}", came)
    return replace(found, created=StoreInfo().created, **asked)


def _check_names(path: Any, source: SourceArrays, names: ColumnNames) -> None:
    """Rejects a name by the user that the file does not hold."""
    named = [*names.labels.values(), *dict.fromkeys(names.drop)]
    if names.embedding is not None:
        named.append(names.embedding)
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        expected = "must be given each column for one thing (--label, --drop, --embedding)"
        reject_file(path, expected, f"{twice[0]!r} twice")
    for name in (*names.labels.values(), *names.drop):
        if name in names.drop and source.left_out.get(name) == DROPPED:
            continue
        if name in source.left_out:
            reject_file(path, f"must hold values in column {name!r}", source.left_out[name])
        if name not in source.columns:
            listed = ", ".join([*source.columns][:20]) or "no labels"
            reject_file(path, f"must hold column {name!r}", listed)


def _meant_labels(
    path: Any, source: SourceArrays, names: ColumnNames, notes: ImportNotes
) -> dict[str, str]:
    """Each label that the user names, or whose column has a usual name and can mean it."""
    _check_names(path, source, names)
    for text in source.doubts:
        notes.doubt(text)
    found = dict(names.labels)
    for new, candidates in LABEL_NAMES.items():
        taken = set(found.values())
        known = [k for k in (*source.columns, *source.left_out) if k not in taken]
        known = [k for k in known if source.left_out.get(k) != DROPPED]
        old = next((k for n in candidates for k in known if k.lower() == n), None)
        if new in found or old is None:
            continue
        if old in source.left_out:
            if new in ("fold", "group"):
                continue  # named with the others that are left out
            requirement = f"must hold values in column {old!r} (--drop leaves it out)"
            reject_file(path, requirement, source.left_out[old])
        why_not = None if source.store else cannot_mean(new, old, source.columns[old])
        if why_not is None:
            found[new] = old
        elif old != new:
            notes.doubt(f"took {old!r} for a label of its own, not for {new}: {why_not}")
        else:
            del source.columns[old]
            source.left_out[old] = why_not
    return found


def _read_labels(
    path: Any,
    source: SourceArrays,
    left: dict[str, np.ndarray],
    meant: Mapping[str, str],
    shape: tuple[int, ...],
    notes: ImportNotes,
) -> dict[str, np.ndarray]:
    """The labels; what cannot be one is named."""
    rows, width = shape
    lengths = {k: v.size for k, v in left.items() if v.ndim and v.size == max(v.shape)}
    if width in lengths.values() and rows not in lengths.values():
        name = next(k for k, size in lengths.items() if size == width)
        came = f"{width} values in {name!r}, as many as embeddings are wide: transposed?"
        reject_file(path, f"must hold labels of {rows} rows", came)
    by_column = {old: new for new, old in meant.items()}
    used = [source.groups[k] for k in source.columns if k not in left and k in source.groups]
    for name, why in source.left_out.items():
        notes.leave_out(name, why, asked=why == DROPPED)
    labels = {}
    for old, values in left.items():
        new = by_column.get(old, old)
        notes.columns[new] = old
        group = source.groups.get(old, "")
        if used and not _beside(group, used[0]):
            notes.doubt(f"{old!r} is of group {group!r}, the embedding of {used[0]!r}: other rows?")
        if old in by_column:
            read = read_meant if new in LABEL_NAMES else read_label
            labels[new] = read(path, new, values, rows, notes)
        elif old in source.index:
            notes.leave_out(old, "an index of the rows (--label NEW=OLD takes it)", asked=True)
        elif new in meant:
            reject_file(path, "must hold each label once", f"{new!r} named and in the file")
        elif source.store:
            labels[new] = values
        elif "/" in old or not old.strip(". "):
            notes.leave_out(old, "whose name is no word without '/' (--label NEW=OLD gives one)")
        elif values.shape not in ((rows,), (rows, 1)):
            why = f"whose shape {values.shape} is not that of {rows} rows"
            if len(values) == rows:
                why = f"{values[0].size} values per row, where a label has one"
            notes.leave_out(old, why)
        else:
            column = _read_if_possible(path, new, values, rows, notes)
            if column is not None:
                labels[new] = column
    return labels


def _beside(group: str, embeddings: str) -> bool:
    """Whether one group is in the other: siblings, as `train` and `test`, have other rows."""
    inner, outer = sorted((f"/{group}".rstrip("/"), f"/{embeddings}".rstrip("/")), key=len)[::-1]
    return f"{inner}/".startswith(f"{outer}/")


def _read_if_possible(
    path: Any, name: str, values: np.ndarray, rows: int, notes: ImportNotes
) -> np.ndarray | None:
    """A label that nobody asked for: where it cannot be read it is left out."""
    if values.dtype.kind == "O":
        longest = max((len(v) for v in values if hasattr(v, "__len__")), default=0)
        if 4 * longest * rows > most_bytes(os.path.getsize(path)):
            notes.leave_out(name, f"texts of up to {longest:,} characters")
            return None
    try:
        return read_label(path, name, values, rows, notes)
    except InputError as error:
        if notes.strict:
            raise
        notes.leave_out(name, str(error).partition("` ")[2])
        return None
