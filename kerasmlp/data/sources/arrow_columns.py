"""Arrow columns → arrays, with the names that dictionaries and Hugging Face features declare."""

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from kerasmlp.data.sources.source import CODES, DROPPED, SourceArrays, named_codes, text_array
from kerasmlp.data.stores.label_columns import way_to_utf8
from kerasmlp.utils.checks import InputError, reject_file

PANDAS_INDEX = "__index_level_"
_TRIED = 1000


class _LeftOut(Exception):
    """A column that is no label and no embedding, and the reason."""


def read_table(path: Path, read: Callable[[], Any], drop: Collection[str] = ()) -> SourceArrays:
    """Turns an Arrow table into arrays; what is wrong with it becomes one sentence."""
    try:
        return _columns_of(path, read(), drop)
    except InputError:
        raise
    except UnicodeDecodeError:
        requirement = f"must be text in UTF-8 or UTF-16{way_to_utf8(path)}"
        reject_file(path, requirement, "other bytes, as of Latin-1")
    except (
        pa.ArrowException,
        OSError,
        MemoryError,
        ValueError,
        EOFError,
        zlib.error,
    ) as error:
        text = ascii(" ".join(str(error).split())[:200])
        if uneven := re.search(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", text):
            row, names, values = uneven.groups()
            came = (
                f"{f'row {row}' if row else 'a row'} has {values} values, the header {names} names"
            )
            reject_file(path, "must be a complete table, each row as wide as its header", came)
        reject_file(path, "must be a complete table", f"a damaged or foreign one ({text})")


def _columns_of(path: Path, table: Any, drop: Collection[str]) -> SourceArrays:
    names = table.column_names
    metadata = table.schema.metadata or {}
    class_names = _class_names(metadata)
    attributes = {k.decode("utf-8", "replace"): v for k, v in metadata.items()}
    attributes = {k: v for k, v in attributes.items() if k.endswith(CODES)}
    columns, left_out = {}, {}
    require_once(path, names, drop)
    for place, name in enumerate(names):
        if name in drop:
            left_out[name] = DROPPED
            continue
        try:
            column = from_arrow(table.column(place))
        except _LeftOut as reason:
            left_out[name] = str(reason)
            continue
        if name in class_names and column.dtype.kind in "iuf" and column.ndim == 1:
            column = named_codes(path, name, class_names[name], _whole(column))
        columns[name] = column
    index = [n for n in names if n.startswith(PANDAS_INDEX)]
    return SourceArrays(columns, attributes, left_out, index, table=True)


def require_once(path: Path, names: Collection[str], drop: Collection[str]) -> None:
    """Rejects columns of one name, but for those that are left out."""
    repeated = [name for name, count in Counter(names).items() if count > 1 and name not in drop]
    if repeated:
        reject_file(path, "must hold each column once", f"{repeated[0]!r} twice or more")


def _whole(codes: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(codes), -1, codes) if codes.dtype.kind == "f" else codes


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of each `ClassLabel` that Hugging Face's `datasets` wrote into a file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"].items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    named = {name: _names(feature) for name, feature in features}
    return {name: names for name, names in named.items() if names}


def _names(feature: Any) -> list[str] | None:
    """As `datasets` writes them, or as the cards of data sets do: `{"0": "cat", "1": …}`."""
    label = feature.get("class_label", feature) if isinstance(feature, dict) else None
    names = label.get("names") if isinstance(label, dict) else None
    if isinstance(names, dict) and set(names) == {str(k) for k in range(len(names))}:
        names = [names[str(k)] for k in range(len(names))]
    return names if isinstance(names, list) else None


def from_arrow(column: Any) -> np.ndarray:
    """One chunked column as an array.

    Raises:
        _LeftOut: if it is neither numbers nor text nor lists of one shape.
    """
    chunks = [chunk for chunk in column.chunks if len(chunk)] or [pa.array([], column.type)]
    if _is_text(column.type):
        return _text(pa.chunked_array(chunks, column.type))
    parts = [_from_chunk(chunk) for chunk in chunks]
    if len({part.shape[1:] for part in parts}) > 1:
        raise _LeftOut("lists of several lengths")
    join = np.ma.concatenate if any(map(np.ma.isMaskedArray, parts)) else np.concatenate
    return join(parts) if parts[1:] else parts[0]


def is_read(kind: Any) -> bool:
    """Whether columns of a type can mean something here: no structs, maps or lists of text."""
    if isinstance(kind, pa.ExtensionType | pa.BaseExtensionType):
        return is_read(kind.storage_type)
    if _is_list(kind):
        value = kind.value_type
        return (_is_list(value) and is_read(value)) or _is_number(value)
    return not (
        types.is_nested(kind) or types.is_union(kind)
        or (types.is_dictionary(kind) and types.is_nested(kind.value_type))
    )  # fmt: skip


def _is_list(kind: Any) -> bool:
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_number(kind: Any) -> bool:
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _is_text(kind: Any) -> bool:
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _text(column: Any) -> np.ndarray:
    parts = [_text_of_chunk(chunk) for chunk in column.chunks if len(chunk)]
    if any(part.dtype == object for part in parts):
        parts = [part.astype(object) for part in parts]
    return np.concatenate(parts) if parts else np.array([], str)


def _text_of_chunk(chunk: Any) -> np.ndarray:
    """By its dictionary, unless most texts come once, as file names do."""
    if types.is_string_view(chunk.type):
        chunk = chunk.cast(pa.string())
    if not hasattr(chunk, "dictionary"):
        first = chunk.slice(0, _TRIED)
        if pc.count_distinct(first).as_py() > len(first) // 2:
            return text_array(chunk.to_pylist())
        chunk = chunk.dictionary_encode()
    texts = chunk.dictionary.to_pylist()
    codes = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    if len(texts) == len(codes) and (codes == np.arange(len(codes))).all():
        return text_array(texts)
    return text_array(texts, codes)


def _from_chunk(column: Any) -> np.ndarray:
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return _from_extension(column)
    if _is_list(kind):
        return _from_lists(column)
    if types.is_dictionary(kind):
        return _from_chunk(column.dictionary_decode())
    if types.is_decimal(kind):
        return _from_decimals(column)
    if _is_number(kind):
        if column.null_count == 0:
            return column.to_numpy(zero_copy_only=False)
        if types.is_floating(kind):
            return column.fill_null(float("nan")).to_numpy(zero_copy_only=False)
        mask = column.is_null().to_numpy(zero_copy_only=False)
        fill = False if types.is_boolean(kind) else 0
        return np.ma.array(column.fill_null(fill).to_numpy(zero_copy_only=False), mask=mask)
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    if types.is_binary_view(kind):
        column = column.cast(pa.binary())
    if (
        types.is_binary_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
    ):
        values = np.empty(len(column), object)
        values[:] = column.to_pylist()
        return values
    try:
        if types.is_duration(kind):  # as text its unit would be lost
            raise _LeftOut(f"values of type {kind}")
        return _text(pa.chunked_array([column.cast(pa.string())]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _LeftOut(f"values of type {kind}") from None


def _from_decimals(column: Any) -> np.ndarray:
    """As integers or floats if those tell all values apart, else as text."""
    texts = column.cast(pa.string())
    try:
        if column.type.scale == 0:
            return _from_chunk(column.cast(pa.int64()))
        floats = column.cast(pa.float64())
        if pc.count_distinct(floats).as_py() == pc.count_distinct(texts).as_py():
            return _from_chunk(floats)
    except pa.ArrowInvalid:
        pass
    return _text(pa.chunked_array([texts]))


def _from_extension(column: Any) -> np.ndarray:
    values = _from_chunk(column.storage)
    if isinstance(column.type, pa.FixedShapeTensorType) and values.ndim == 2:
        order = column.type.permutation or range(len(column.type.shape))
        if list(order) != sorted(order) and sum(axis != 1 for axis in column.type.shape) > 1:
            raise _LeftOut("tensors with permuted axes")
        values = values.reshape(len(values), *column.type.shape)
    return values


def _from_lists(column: Any) -> np.ndarray:
    if column.null_count:
        raise _LeftOut("rows without a list")
    if types.is_fixed_size_list(column.type):
        width = column.type.list_size
    else:
        ends = pc.min_max(pc.list_value_length(column)).as_py()
        if ends["min"] != ends["max"]:
            raise _LeftOut("lists of several lengths")
        width = ends["max"] or 0
    if not is_read(column.type):
        raise _LeftOut(f"values of type {column.type}")
    values = _from_chunk(column.flatten())
    return values.reshape(len(column), width, *values.shape[1:])
