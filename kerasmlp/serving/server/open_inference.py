"""Requests and answers of the Open Inference Protocol, in JSON and with binary tensors."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from kerasmlp.serving.server.questions import (
    Form,
    Question,
    as_float32,
    check_finite,
    check_finite_rows,
    check_numbers,
    check_rows,
    check_signature,
    embeddings_of,
    integers_of,
    parse_object,
    refuse,
)
from kerasmlp.utils.checks import reject_file

Values = list | bytes | memoryview
"""Numbers, or the bytes that they are made of."""

_DATATYPES = {"embedding": "FP32", "num_samples": "INT32", "seed": "INT64"}
_KINDS = {
    "BOOL": "|b1", "INT8": "|i1", "UINT8": "|u1", "INT16": "<i2", "UINT16": "<u2", "INT32": "<i4",
    "UINT32": "<u4", "INT64": "<i8", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items()}
_HINT = "content_type"  # by which a client remembers what a tensor was made of
_BODY = ("inputs", "outputs", "parameters", "id", "model_name")
_INPUT = ("name", "shape", "datatype", "data", "parameters")


@dataclass(frozen=True)
class InferForm(Form):
    """What a request of this protocol may hold, beside that of a `Form`.

    Args:
        model: Its name, as in the path.
        outputs: Of each signature.
    """

    model: str = ""
    outputs: Mapping[str, Sequence[str]] = field(default_factory=dict)


def decode_infer(body: bytes, form: InferForm) -> Question:
    """Reads the body of a request: JSON, behind which binary tensors may lie.

    The signature is the one that `parameters` name as `signature_name`, else
    `serve_mc` where `num_samples` or `seed` is among the inputs, else
    `serving_default`. Every input of the signature must be there, in its datatype.
    A parameter that nobody knows is refused: it may have meant something.

    Returns:
        The question, which wants the request's `id`, and `outputs`: pairs of a name and whether
        it is to be binary.

    Raises:
        InputError: in one sentence.

    Reference: "Open Inference Protocol" of KServe, HTTP/REST; "Binary Tensor Data Extension".
    """
    json_bytes = len(body) if form.json_bytes is None else form.json_bytes
    content = parse_object(memoryview(body)[:json_bytes])
    binary = memoryview(body)[json_bytes:]
    return question_of(content, lambda tensors: _values(tensors, binary), form)


def question_of(
    content: dict, values_of: Callable[[Mapping[str, dict]], Mapping[str, Values]], form: InferForm
) -> Question:
    """Checks what a request of either wire holds; see `decode_infer`.

    Args:
        content: As in JSON.
        values_of: Gives the data of its tensors, by name.
        form: What it may hold.

    Raises:
        InputError: in one sentence.
    """
    _check_keys("body", content, _BODY)
    if content.get("model_name") not in (None, form.model):
        refuse("model_name", "must be the model of the path", content["model_name"])
    parameters = _parameters("parameters", content, ("signature_name", "binary_data_output"))
    tensors = _tensors("inputs", content.get("inputs"), _INPUT)
    mc = {"num_samples", "seed"} & tensors.keys()
    usual = "serve_mc" if mc and "serve_mc" in form.signatures else "serving_default"
    signature = check_signature(parameters.get("signature_name", usual), form)
    names = form.signatures[signature]
    if tensors.keys() != set(names):
        refuse("inputs", f"must be {', '.join(names)} of {signature}", [*tensors])
    values = values_of(tensors)
    embedding = _embedding(tensors["embedding"], values["embedding"], form)
    inputs = {"embedding": embedding}
    for name in sorted(set(names) - {"embedding"}):
        whole = _integers(name, tensors[name], values[name], len(embedding))
        inputs[name] = integers_of(name, whole, len(embedding), form)
    binary = _flag("parameters", parameters, "binary_data_output")
    wanted = _wanted(content, form.outputs[signature], binary)
    return Question(signature, inputs, {"id": _id(content), "outputs": wanted})


def encode_infer(
    outputs: Mapping[str, np.ndarray], wanted: Mapping[str, Any], **about: str
) -> tuple[bytes, int | None]:
    """Writes the answer.

    Args:
        outputs: By name, one entry per row.
        wanted: Of the question.
        about: `model_name` and `model_version`.

    Returns:
        The body, and of how many bytes its JSON is; None where there is nothing behind it.

    Raises:
        InputError: if a number is not finite: its row has no answer.

    Example:

    >>> wanted = {"id": None, "outputs": [["label", True]]}
    >>> body, size = encode_infer({"label": np.array([b"a", b"bc"])}, wanted, model_name="age")
    >>> body[:size].decode()
    '{"model_name":"age","outputs":[{"name":"label","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":11}}]}'
    >>> body[size:]
    b'\\x01\\x00\\x00\\x00a\\x02\\x00\\x00\\x00bc'
    """
    check_finite(outputs)
    tensors, parts = [], []
    for name, binary in wanted["outputs"]:
        values = outputs[name]
        datatype = datatype_of(values)
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": values.shape}
        if binary:
            parts.append(bytes_of(values))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        elif datatype == "BYTES":
            tensor["data"] = [v.decode("utf-8", "replace") for v in values.ravel().tolist()]
        else:
            tensor["data"] = np.ascontiguousarray(values.ravel())
        tensors.append(tensor)
    named = about if wanted["id"] is None else {**about, "id": wanted["id"]}
    head = orjson.dumps({**named, "outputs": tensors}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([head, *parts]), len(head) if parts else None


def datatype_of(values: np.ndarray) -> str:
    return "BYTES" if values.dtype.kind in "OS" else _NAMES[values.dtype.newbyteorder("<")]


def bytes_of(values: np.ndarray) -> bytes:
    """Numbers row by row; texts each behind its length."""
    if values.dtype.kind in "OS":
        return b"".join(len(v).to_bytes(4, "little") + v for v in values.ravel().tolist())
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _check_keys(place: str, value: dict, known: Collection[str]) -> None:
    if unknown := [key for key in value if key not in known]:
        refuse(place, f"must hold only {', '.join(known)}", unknown)


def _parameters(place: str, owner: dict, known: Collection[str]) -> dict:
    parameters = {} if owner.get("parameters") is None else owner["parameters"]
    if type(parameters) is not dict:
        refuse(place, "must be an object", parameters)
    _check_keys(place, parameters, (*known, _HINT))
    return parameters


def _flag(place: str, parameters: dict, name: str, otherwise: bool = False) -> bool:
    value = parameters.get(name, otherwise)
    if type(value) is not bool:
        refuse(f"{place}.{name}", "must be true or false", value)
    return value


def _tensors(place: str, tensors: Any, known: Collection[str]) -> dict[str, dict]:
    """By name, each once."""
    if type(tensors) is not list or not tensors:
        refuse(place, "must be a list of at least one tensor", tensors)
    named: dict[str, dict] = {}
    for i, tensor in enumerate(tensors):
        if type(tensor) is not dict or type(tensor.get("name")) is not str:
            refuse(f"{place}[{i}]", "must be an object with a name", tensor)
        if tensor["name"] in named:
            refuse(f"{place}[{i}]", "must be named once", tensor["name"])
        _check_keys(f"{place}[{i}]", tensor, known)
        named[tensor["name"]] = tensor
    return named


def binary_size(name: str, tensor: dict) -> Any:
    """What a tensor says of it."""
    return _parameters(name, tensor, ("binary_data_size",)).get("binary_data_size")


def _values(tensors: Mapping[str, dict], binary: memoryview) -> dict[str, Values]:
    """The data of each tensor: a list, or its part of what lies behind the JSON."""
    values, first = {}, 0
    for name, tensor in tensors.items():
        size = binary_size(name, tensor)
        if (size is None) == (tensor.get("data") is None):
            came = "neither" if size is None else "both"
            reject_file(name, "must have either `data` or a `binary_data_size`", came)
        if size is None:
            if type(tensor["data"]) is not list:
                refuse(name, "must have a list as its data", tensor["data"])
            values[name] = tensor["data"]
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - first:
            most = f"an integer from 0 to {len(binary) - first}, the bytes that came"
            refuse(f"{name}.binary_data_size", f"must be {most}", size)
        values[name], first = binary[first : first + size], first + size
    if first != len(binary):
        requirement = f"must end behind its tensors, {first} bytes after the JSON"
        reject_file("body", requirement, f"{len(binary)} bytes")
    return values


def _shape(name: str, tensor: dict) -> list[int]:
    if tensor.get("datatype") != _DATATYPES[name]:
        refuse(name, f"must be of datatype {_DATATYPES[name]}", tensor.get("datatype"))
    shape = tensor.get("shape")
    if type(shape) is not list or any(type(v) is not int or v < 0 for v in shape):
        refuse(f"{name}.shape", "must be a list of integers >= 0", shape)
    return shape


def _embedding(tensor: dict, values: Values, form: Form) -> np.ndarray:
    shape, width = _shape("embedding", tensor), form.width
    if len(shape) != 2 or shape[1] != width or not shape[0]:
        refuse("embedding.shape", f"must be [rows, {width}], one row or more", shape)
    check_rows("embedding", shape[0], form.max_rows)
    if isinstance(values, list):
        if values and type(values[0]) is list:
            _check_count("embedding", "rows", len(values), shape[0])
            return embeddings_of(values, width)
        _check_count("embedding", "numbers", len(values), shape[0] * width)
        check_numbers("embedding", values)
        return as_float32(values).reshape(shape)
    _check_count("embedding", "bytes", len(values), 4 * shape[0] * width)
    embeddings = np.frombuffer(values, "<f4").reshape(shape)
    check_finite_rows(embeddings)
    return embeddings


def _integers(name: str, tensor: dict, values: Values, rows: int) -> list:
    shape = _shape(name, tensor)
    if shape not in ([], [1], [rows]):
        refuse(f"{name}.shape", f"must be [1] or [{rows}], as there are rows", shape)
    count = shape[0] if shape else 1
    if isinstance(values, list):
        _check_count(name, "numbers", len(values), count)
        return values
    kind = np.dtype(_KINDS[_DATATYPES[name]])
    _check_count(name, "bytes", len(values), kind.itemsize * count)
    return np.frombuffer(values, kind).tolist()


def _check_count(name: str, what: str, count: int, expected: int) -> None:
    if count != expected:
        reject_file(name, f"must have {expected} {what}, as its shape says", f"{count}")


def _wanted(content: dict, known: Sequence[str], binary: bool) -> list[list]:
    """Names of outputs, and whether each is to be binary."""
    if content.get("outputs") in (None, []):
        return [[name, binary] for name in known]
    wanted = []
    for name, tensor in _tensors("outputs", content["outputs"], ("name", "parameters")).items():
        if name not in known:
            refuse("outputs", f"must be among {', '.join(known)}", name)
        parameters = _parameters(name, tensor, ("binary_data",))
        wanted.append([name, _flag(name, parameters, "binary_data", binary)])
    return wanted


def _id(content: dict) -> str | None:
    if type(content.get("id")) not in (str, type(None)):
        refuse("id", "must be a text", content["id"])
    return content.get("id")
