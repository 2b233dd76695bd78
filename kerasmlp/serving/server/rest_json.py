"""Requests and answers of `:predict` in TensorFlow Serving's JSON, checked to the last number."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from kerasmlp.serving.server.questions import (
    Form,
    Question,
    check_finite,
    check_rows,
    check_signature,
    embeddings_of,
    integers_of,
    parse_object,
    refuse,
)


def decode(body: bytes, form: Form) -> Question:
    """Reads the body of a request.

    `instances` holds one object per row (or, of a signature with one input,
    its bare value), `inputs` one object of columns (or the one bare column).
    `num_samples` and `seed` may be one number in columns. NaN, Infinity, what
    is no float32, `true` for a number, and lists deeper than the input are refused.

    Returns:
        The question, which wants `by_row`: whether it was asked with `instances`.

    Raises:
        InputError: in one sentence.

    Reference: "RESTful API" of TensorFlow Serving, Predict API.
    """
    content = parse_object(body)
    if unknown := set(content) - {"signature_name", "instances", "inputs"}:
        refuse("body", "must hold `signature_name`, `instances` or `inputs` alone", min(unknown))
    signature = check_signature(content.get("signature_name", "serving_default"), form)
    if ("instances" in content) == ("inputs" in content):
        refuse("body", "must hold either `instances` or `inputs`", [*content])
    names = form.signatures[signature]
    by_row = "instances" in content
    columns = (_by_row if by_row else _by_column)(content, names, form.max_rows)
    inputs = {"embedding": embeddings_of(columns["embedding"], form.width)}
    rows = len(inputs["embedding"])
    for name in set(names) - {"embedding"}:
        values = columns[name] if type(columns[name]) is list else [columns[name]]
        inputs[name] = integers_of(name, values, rows, form)
    return Question(signature, inputs, {"by_row": by_row})


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
    check_finite(outputs)
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
        came = [*value] if type(value) is dict else value
        refuse(place, f"must be an object of {', '.join(sorted(names))}", came)


def _column(name: str, value: Any, max_rows: int) -> list:
    if type(value) is not list or not value:
        refuse(name, "must be a list of at least one row", value)
    check_rows(name, len(value), max_rows)
    return value
