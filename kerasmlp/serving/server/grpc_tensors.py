"""Requests and answers of the Open Inference Protocol as messages of gRPC."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasmlp.serving.server.grpc_messages import messages, parse
from kerasmlp.serving.server.open_inference import (
    InferForm,
    binary_size,
    bytes_of,
    datatype_of,
    question_of,
)
from kerasmlp.serving.server.questions import Question, check_finite, refuse
from kerasmlp.utils.checks import reject_file

_CONTENTS = {
    "BOOL": "bool", "INT8": "int", "INT16": "int", "INT32": "int", "INT64": "int64",
    "UINT8": "uint", "UINT16": "uint", "UINT32": "uint", "UINT64": "uint64",
    "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes",
}  # fmt: skip


@dataclass(frozen=True)
class MessageForm(InferForm):
    """Of a request that is a message."""


def decode_message(body: bytes, form: MessageForm) -> Question:
    """Reads a `ModelInferRequest`, by the rules of `decode_infer`.

    Tensors come as contents of their datatype, or all of them raw. The answer's come raw where
    the request's did; `binary_data_output` says otherwise.

    Raises:
        InputError: in one sentence.
    """
    request = parse("ModelInferRequest", body)
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        came = f"{len(raw)} for {len(request.inputs)} inputs"
        reject_file("raw_input_contents", "must be one for each of the inputs, or none", came)

    def values_of(tensors: Mapping[str, dict]) -> dict[str, list | bytes]:
        contents = (one.contents for one in request.inputs)
        pieces = raw or (None,) * len(request.inputs)
        return {
            name: _values(tensor, content, piece)
            for (name, tensor), content, piece in zip(
                tensors.items(), contents, pieces, strict=True
            )
        }

    asked = {"binary_data_output": bool(raw), **_plain(request.parameters)}
    content: dict[str, Any] = {"id": request.id, "parameters": asked}
    for end in ("inputs", "outputs"):
        tensors = getattr(request, end)
        content[end] = [{"name": t.name, "parameters": _plain(t.parameters)} for t in tensors]
    for tensor, one in zip(content["inputs"], request.inputs, strict=True):
        tensor |= {"datatype": one.datatype, "shape": list(one.shape)}
    question = question_of(content, values_of, form)
    if len({binary for _, binary in question.wanted["outputs"]}) > 1:
        refuse("outputs", "must have `binary_data` all alike", question.wanted["outputs"])
    return question


def encode_message(
    outputs: Mapping[str, np.ndarray], wanted: Mapping[str, Any], **about: str
) -> bytes:
    """Writes a `ModelInferResponse`.

    Args:
        outputs: By name, one entry per row.
        wanted: Of the question.
        about: `model_name` and `model_version`.

    Raises:
        InputError: if a number is not finite: its row has no answer.

    Example:

    >>> wanted = {"id": "7", "outputs": [["label", False]]}
    >>> made = encode_message({"label": np.array([b"a", b"bc"])}, wanted, model_name="age")
    >>> answer = parse("ModelInferResponse", made)
    >>> answer.id, answer.outputs[0].datatype, answer.outputs[0].contents.bytes_contents
    ('7', 'BYTES', [b'a', b'bc'])
    """
    check_finite(outputs)
    answer = messages()["ModelInferResponse"](id=wanted["id"], **about)
    kinds = {name: datatype_of(outputs[name]) for name, _ in wanted["outputs"]}
    # Half floats have no contents of their own.
    is_raw = wanted["outputs"][0][1] or not _CONTENTS.keys() >= set(kinds.values())
    for name, kind in kinds.items():
        values = outputs[name]
        tensor = answer.outputs.add(name=name, datatype=kind, shape=values.shape)
        if is_raw:
            answer.raw_output_contents.append(bytes_of(values))
        else:
            getattr(tensor.contents, f"{_CONTENTS[kind]}_contents").extend(values.ravel().tolist())
    return answer.SerializeToString()


def _plain(parameters: Mapping) -> dict[str, Any]:
    """The values of parameters; None of an empty one."""
    chosen = {name: one.WhichOneof("parameter_choice") for name, one in parameters.items()}
    return {k: choice and getattr(parameters[k], choice) for k, choice in chosen.items()}


def _values(tensor: dict, contents: Any, raw: bytes | None) -> list | bytes:
    """The data of one tensor."""
    name, given = tensor["name"], [field.name for field, _ in contents.ListFields()]
    size = binary_size(name, tensor)
    if size is not None and (raw is None or size != len(raw)):
        came = "must be the bytes of its raw contents"
        refuse(f"{name}.binary_data_size", came, size)
    if raw is not None:
        if given:
            refuse(name, "must have raw contents only, as others have some", given)
        return raw
    known = _CONTENTS.get(tensor["datatype"])
    if given and given != [f"{known}_contents"]:
        refuse(name, f"must have the contents of its datatype, {tensor['datatype'][:80]}", given)
    return list(getattr(contents, given[0])) if given else []
