"""Arrays of other programs → EmbeddingStore: which column means what, and its repair."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kerasmlp.checks import check_choice, reject_file
from kerasmlp.labels import GENDER_CODES, UNKNOWN, decode_gender, parse_age_years, repair_age_group
from kerasmlp.stores.embedding_store import NORM_TOLERANCE, EmbeddingStore
from kerasmlp.stores.label_columns import plain_column
from kerasmlp.stores.source_arrays import read_source
from kerasmlp.stores.store_info import StoreInfo

EMBEDDING_NAMES = ("embedding", "embeddings", "features", "x")
LABEL_NAMES = {
    "age_years": ("age_years", "age", "years"),
    "age_group": ("age_group",),
    "gender": ("gender", "sex"),
    "fold": ("fold",),
    "group": ("group",),
}
GENDER_SOURCES = {"male0": "utkface", "female0": "imdb-wiki", "words": "words"}
GENDER_CODE_CHOICES = ("auto", *GENDER_SOURCES)
_NO_GENDER = {"", "-1", "u", "unknown", "none", "nan", "null", "na", "n/a", "?"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class ColumnNames:
    """What the user said about columns; the rest is found by name.

    Attributes:
        embedding: Name of the 2-D array, or what the columns of one number
            have before their digit (`e` for e0, e1, …).
        labels: Meaning (`age_years`, `gender`, …, or a new name) to column.
        drop: Columns to leave out.
    """

    embedding: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()


def import_embeddings(
    path: str | os.PathLike,
    *,
    columns: ColumnNames | None = None,
    gender_codes: str = "auto",
    normalize: bool = False,
    float16: bool = False,
    info: Mapping[str, Any] | None = None,
    say: Say = lambda text: None,
) -> EmbeddingStore:
    """Reads embeddings and labels from a file of another program, or from a store.

    Args:
        path: `.npz`, `.npy`, `.csv`, `.tsv`, `.parquet`, `.h5`, `.hdf5`.
        columns: Names that are not found by themselves.
        gender_codes: `"male0"`, `"female0"`, `"words"`, or `"auto"`: what the
            file's attribute `gender_codes` says, else words for text and 0
            male, 1 female for numbers.
        normalize: Whether to divide every embedding by its norm; if not,
            it is recorded whether they have norm 1.
        float16: Whether to round to half precision.
        info: Fields of `StoreInfo` that go before the file's own.
        say: Receives one sentence for each choice made for the user.

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
    columns = columns or ColumnNames()
    source = read_source(path)
    embeddings, left = _take_embeddings(path, source.columns, columns)
    labels = _take_labels(path, left, columns, len(embeddings), say)
    if "gender" in labels:
        said = str(source.attributes.get("gender_codes", ""))
        labels["gender"] = _decode_genders(path, labels["gender"], gender_codes, said, say)
    if "age_years" in labels:
        labels.update(_decode_ages(path, labels.pop("age_years"), "age_group" in labels))
    if "age_group" in labels:
        labels["age_group"] = _per_value(labels["age_group"], repair_age_group)
    found = StoreInfo.from_attributes(path, source.attributes)
    claimed = "normalized" in source.attributes and found.normalized
    embeddings, normalized = _check_norm(path, embeddings, normalize, claimed)
    if float16:
        if np.abs(embeddings).max(initial=0) > np.finfo(np.float16).max:
            reject_file(path, "must fit half precision for --float16", "numbers above 65504")
        embeddings = embeddings.astype(np.float16)
    for key in ("embedder", "embedder_sha256"):
        asked = (info or {}).get(key)
        if asked is not None and getattr(found, key) not in (None, asked):
            reject_file(path, f"must hold embeddings of {key} {asked!r}", getattr(found, key))
    found = replace(found, normalized=normalized, created=StoreInfo().created, **(info or {}))
    return EmbeddingStore(embeddings, labels, found, name=path)


def _take_embeddings(
    path: Any, arrays: Mapping[str, np.ndarray], names: ColumnNames
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The 2-D array of embeddings, and the other columns."""
    left = dict(arrays)
    if names.embedding in left:
        return left.pop(names.embedding), left
    by_lower = {k.lower(): k for k in reversed(left)}
    wide = [k for k, v in left.items() if v.ndim == 2 and v.dtype.kind in "fiu"]
    if names.embedding is None:
        named = [by_lower[n] for n in EMBEDDING_NAMES if by_lower.get(n) in wide]
        if named or len(wide) == 1:
            return left.pop((named or wide)[0]), left
    families: dict[str, dict[int, str]] = {}
    for key, values in left.items():
        parts = re.fullmatch(r"(.*?)(\d+)", key)
        if parts and values.ndim == 1:
            families.setdefault(parts[1], {})[int(parts[2])] = key
    if names.embedding is not None:
        families = {k: v for k, v in families.items() if k == names.embedding}
    families = {k: v for k, v in families.items() if len(v) > 1}
    usual = next((k for k in ("e", "") if k in families), None)
    if usual is not None:
        families = {usual: families[usual]}
    if len(families) != 1:
        kinds = (f"{k} {v.dtype}{list(v.shape)}" for k, v in left.items())
        listed = ", ".join(kinds) if len(left) <= 20 else f"{len(left)} columns"
        asked = repr(names.embedding) if names.embedding else "'embedding' or e0, e1, …"
        option = "" if names.embedding else " (or name them by --embedding)"
        reject_file(path, f"must hold embeddings as {asked}{option}", listed or "no columns")
    prefix, family = families.popitem()
    first = min(family)
    missing = sorted(set(range(first, max(family) + 1)) - set(family))
    if missing or first > 1:
        came = f"no {prefix}{missing[0] if missing else 0}"
        reject_file(path, f"must hold the columns {prefix}0 to {prefix}{max(family)}", came)
    parts = [left.pop(family[i]) for i in sorted(family)]
    text = [
        name for name, part in zip(sorted(family), parts, strict=True) if part.dtype.kind == "U"
    ]
    if text:
        reject_file(path, "must hold numbers as embeddings", f"text in column {family[text[0]]!r}")
    return np.stack(parts, axis=1), left


def _take_labels(
    path: Any, left: dict[str, np.ndarray], names: ColumnNames, rows: int, say: Say
) -> dict[str, np.ndarray]:
    for name in (*names.labels.values(), *names.drop):
        if name not in left:
            reject_file(path, f"must hold column {name!r}", f"{', '.join(left) or 'no labels'}")
    for name in names.drop:
        del left[name]
    labels = {new: left.pop(old) for new, old in names.labels.items()}
    by_lower = {k.lower(): k for k in reversed(left)}
    for new, candidates in LABEL_NAMES.items():
        old = next((by_lower[n] for n in candidates if n in by_lower), None)
        if new not in labels and old is not None:
            labels[new] = left.pop(old)
    for name, values in left.items():
        if name in labels:
            reject_file(path, "must hold each label once", f"{name!r} named and in the file")
        if values.shape == (rows,):
            labels[name] = values
        else:
            say(f"{path}: left out {name!r}, whose shape {values.shape} is not that of {rows} rows")
    return {k: plain_column(path, k, v, rows) for k, v in labels.items()}


def _per_value(column: np.ndarray, decode: Callable[[Any], Any]) -> np.ndarray:
    values, codes = np.unique(column, return_inverse=True)
    return np.array([decode(v.item()) for v in values])[codes]


def _decode_genders(path: Any, column: np.ndarray, codes: str, said: str, say: Say) -> np.ndarray:
    if codes == "auto":
        attribute = re.search(r"\b([01])\s*[:=]?\s*(male|female)\b", said.lower())
        if attribute and column.dtype.kind != "U":
            codes = "male0" if (attribute[1] == "0") == (attribute[2] == "male") else "female0"
        else:
            texts = {str(v).lower() for v in np.unique(column)} - _NO_GENDER
            numeric = texts <= {"0", "1", "0.0", "1.0"}
            codes = "male0" if column.dtype.kind != "U" or (texts and numeric) else "words"
            if codes == "male0":
                say(f"{path}: read gender as 0 male, 1 female; --gender-codes says otherwise")

    def decode(value: Any) -> int:
        gender = decode_gender(value, GENDER_SOURCES[codes])
        if gender is None and str(value).strip().lower().removesuffix(".0") not in _NO_GENDER:
            words = ", ".join(GENDER_CODES["words"])
            expected = f"one of {words}" if codes == "words" else "codes 0 and 1"
            reject_file(path, f"must hold gender as {expected} (--gender-codes)", repr(value))
        return UNKNOWN if gender is None else int(gender)

    return _per_value(column, decode).astype(np.int8)


def _decode_ages(path: Any, column: np.ndarray, has_groups: bool) -> dict[str, np.ndarray]:
    """Years; or age groups, where a table calls its groups `age` as FairFace's does."""
    if column.dtype.kind != "U":
        return {"age_years": np.where(column == UNKNOWN, np.nan, column).astype(np.float32)}
    texts = {str(t) for t in np.unique(column) if t.strip().lower() not in _NO_GENDER}
    unread = sorted(t for t in texts if parse_age_years(t) is None)
    if unread and len(unread) == len(texts) and not has_groups:
        return {"age_group": column}
    if unread:
        reject_file(path, "must hold ages in years (--age names the column)", repr(unread[0]))

    def decode(text: str) -> float:
        age_years = parse_age_years(text)
        return np.nan if age_years is None else age_years

    return {"age_years": _per_value(column, decode).astype(np.float32)}


def _check_norm(
    path: Any, embeddings: np.ndarray, normalize: bool, claimed: bool
) -> tuple[np.ndarray, bool]:
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or 0 in embeddings.shape:
        return embeddings, False  # the store's constructor says what is wrong
    with np.errstate(over="ignore", invalid="ignore"):
        wide = embeddings.astype(np.float32)
        norms = np.sqrt(np.vecdot(wide, wide))
    if normalize and np.isfinite(norms).all() and norms.all():
        dtype = np.float16 if embeddings.dtype == np.float16 else np.float32
        return (wide / norms[:, None]).astype(dtype), True
    return embeddings, claimed or bool((np.abs(norms - 1) <= NORM_TOLERANCE).all())
