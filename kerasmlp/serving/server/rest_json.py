"""Requests and answers of `:predict` in TensorFlow Serving's JSON, checked to the last number."""

import base64
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from kerasmlp.utils.checks import reject_file

_NUMBERS = {int, float}  # `bool` is an int too, and not wanted
_SEEDS = 1 << 63


@dataclass(frozen=True)
class Form:
    """What a request may hold.

    Args:
        signatures: With the names of their inputs.
        width: Of the embeddings.
        max_rows: More are refused.
        max_samples: More passes per row are refused.
    """

    signatures: Mapping[str, Sequence[str]]
    width: int
    max_rows: int
    max_samples: int


@dataclass(frozen=True)
class Question:
    """A request that can be computed.

    Args:
        signature: Of the model.
        inputs: By name, one entry per row.
        by_row: Whether it was asked with `instances`.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    by_row: bool

    @property
    def rows(self) -> int:
        return len(self.inputs["embedding"])

    @property
    def passes(self) -> int:
        """Rows × MC passes, all rows taking as many as the one that wants most."""
        samples = self.inputs.get("num_samples")
        return self.rows * (1 if samples is None else int(samples.max()))


def decode(body: bytes, form: Form) -> Question:
    """Reads the body of a request.

    `instances` holds one object per row (or, of a signature with one input,
    its bare value), `inputs` one object of columns (or the one bare column).
    `num_samples` and `seed` may be one number in columns. NaN, Infinity, what
    is no float32, `true` for a number, and lists deeper than the input are refused.

    Raises:
        InputError: in one sentence.

    Reference: "RESTful API" of TensorFlow Serving, Predict API.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reject_file("body", "must be JSON of limited depth, without NaN and Infinity", f"{error}")
    if type(content) is not dict:
        _refuse("body", "must be a JSON object", content)
    signature = content.get("signature_name", "serving_default")
    signature = "serving_default" if signature == "" else signature  # as TensorFlow Serving does
    if type(signature) is not str or signature not in form.signatures:
        _refuse("signature_name", f"must be one of {', '.join(form.signatures)}", signature)
    if ("instances" in content) == ("inputs" in content):
        reject_file("body", "must hold either `instances` or `inputs`", reprlib.repr([*content]))
    names = form.signatures[signature]
    by_row = "instances" in content
    columns = (_by_row if by_row else _by_column)(content, names, form.max_rows)
    inputs = {"embedding": _embeddings(columns["embedding"], form.width)}
    rows = len(inputs["embedding"])
    limits = {"num_samples": (1, form.max_samples, np.int32), "seed": (0, _SEEDS - 1, np.int64)}
    for name in set(names) - {"embedding"}:
        inputs[name] = _integers(name, columns[name], rows, *limits[name])
    return Question(signature, inputs, by_row)


def encode(outputs: Mapping[str, np.ndarray], *, by_row: bool) -> bytes:
    """Writes the answer: `predictions` to `instances`, `outputs` to `inputs`.

    One output is written bare, several as an object by name. Texts are
    strings, those of a name in `_bytes` objects `{"b64": …}`. A float32 has
    the fewest digits that give it back.

    Raises:
        InputError: if a number is not finite: JSON has none such, and its row no answer.

    Example:

    >>> encode({"p": np.float32([0.1, 1]), "label": np.array([b"a", b"b"])}, by_row=True)
    b'{"predictions":[{"p":0.1,"label":"a"},{"p":1.0,"label":"b"}]}'
    >>> encode({"p": np.float32([0.1, 1])}, by_row=False)
    b'{"outputs":[0.1,1.0]}'
    """
    for values in outputs.values():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0]
            came = "numbers with which it runs over"
            reject_file(f"embedding[{row}]", "must have a finite answer of the model", came)
    plain = {k: _texts(k, v) if v.dtype.kind in "OS" else v for k, v in outputs.items()}
    if by_row:
        rows = zip(*plain.values(), strict=True)
        content = [_bare(dict(zip(plain, row, strict=True))) for row in rows]
    else:
        content = _bare(plain)
    answer = {"predictions" if by_row else "outputs": content}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _bare(outputs: dict) -> Any:
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _texts(name: str, values: np.ndarray) -> list:
    if name.endswith("_bytes"):
        return [{"b64": base64.b64encode(v).decode()} for v in values.tolist()]
    return [v.decode("utf-8", "replace") for v in values.tolist()]


def _by_row(content: dict, names: Sequence[str], max_rows: int) -> dict[str, list]:
    rows = _column("instances", content["instances"], max_rows)
    if len(names) == 1 and type(rows[0]) is not dict:
        return {names[0]: rows}
    for i, row in enumerate(rows):
        _check_names(f"instances[{i}]", row, names)
    return {name: [row[name] for row in rows] for name in names}


def _by_column(content: dict, names: Sequence[str], max_rows: int) -> dict[str, Any]:
    columns = content["inputs"]
    if len(names) == 1 and type(columns) is not dict:
        columns = {names[0]: columns}
    _check_names("inputs", columns, names)
    _column("embedding", columns["embedding"], max_rows)
    return columns


def _check_names(place: str, value: Any, names: Sequence[str]) -> None:
    if type(value) is not dict or value.keys() != set(names):
        came = reprlib.repr([*value]) if type(value) is dict else reprlib.repr(value)
        reject_file(place, f"must be an object of {', '.join(sorted(names))}", came)


def _column(name: str, value: Any, max_rows: int) -> list:
    if type(value) is not list or not value:
        _refuse(name, "must be a list of at least one row", value)
    if len(value) > max_rows:
        reject_file(name, f"must hold at most {max_rows} rows", f"{len(value)}")
    return value


def _embeddings(rows: list, width: int) -> np.ndarray:
    for i, row in enumerate(rows):
        if type(row) is not list:
            _refuse(f"embedding[{i}]", f"must be a list of {width} numbers", row)
        if len(row) != width:
            reject_file(f"embedding[{i}]", f"must be a list of {width} numbers", f"{len(row)}")
        if not _NUMBERS.issuperset(map(type, row)):
            wrong = next(v for v in row if type(v) not in _NUMBERS)
            _refuse(f"embedding[{i}]", "must hold numbers only", wrong)
    with np.errstate(over="ignore"):
        embeddings = np.array(rows, np.float64).astype(np.float32)
    if not np.isfinite(embeddings).all():
        reject_file("embedding", "must hold numbers that float32 can hold", "a larger one")
    return embeddings


def _integers(name: str, value: Any, rows: int, minimum: int, maximum: int, dtype) -> np.ndarray:
    values = value if type(value) is list else [value]
    for one in values:
        if type(one) is not int or not minimum <= one <= maximum:
            _refuse(name, f"must be an integer from {minimum} to {maximum}", one)
    if len(values) not in (1, rows):
        reject_file(name, "must be one number, or one per row", f"{len(values)} for {rows} rows")
    return np.broadcast_to(np.array(values, dtype), (rows,))


def _refuse(name: str, requirement: str, received: Any) -> None:
    """A hostile value is shown in part only."""
    reject_file(name, requirement, reprlib.repr(received))
