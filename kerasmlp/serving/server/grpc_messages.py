"""The messages of the Open Inference Protocol's gRPC service, made from their field numbers."""

from functools import cache

from kerasmlp.serving.server.questions import refuse
from kerasmlp.utils.checks import reject_file

SERVICE = "inference.GRPCInferenceService"
_PARAMETERS = "map InferParameter parameters"
_TENSOR = f"string name, string datatype, repeated int64 shape, {_PARAMETERS}, {{}} contents"
_TENSOR = _TENSOR.format("InferTensorContents")
_NUMBERS = ("bool bool", "int32 int", "int64 int64", "uint32 uint", "uint64 uint64", "float fp32")
_CONTENTS = (*_NUMBERS, "double fp64", "bytes bytes")
_MESSAGES = {  # by their full names; fields are numbered in their order
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready",
    "ModelReadyRequest": "string name, string version",
    "ModelReadyResponse": "bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name, string version, repeated string extensions",
    "ModelMetadataRequest": "string name, string version",
    "ModelMetadataResponse": "string name, repeated string versions, string platform, "
    "repeated ModelMetadataResponse.TensorMetadata inputs, "
    "repeated ModelMetadataResponse.TensorMetadata outputs",
    "ModelMetadataResponse.TensorMetadata": "string name, string datatype, repeated int64 shape",
    "InferParameter": "bool bool_param, int64 int64_param, string string_param, "
    "double double_param, uint64 uint64_param",
    "InferTensorContents": ", ".join(f"repeated {one}_contents" for one in _CONTENTS),
    "ModelInferRequest": f"string model_name, string model_version, string id, {_PARAMETERS}, "
    "repeated ModelInferRequest.InferInputTensor inputs, "
    "repeated ModelInferRequest.InferRequestedOutputTensor outputs, "
    "repeated bytes raw_input_contents",
    "ModelInferRequest.InferInputTensor": _TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": f"string name, {_PARAMETERS}",
    "ModelInferResponse": f"string model_name, string model_version, string id, {_PARAMETERS}, "
    "repeated ModelInferResponse.InferOutputTensor outputs, repeated bytes raw_output_contents",
    "ModelInferResponse.InferOutputTensor": _TENSOR,
}
_CHOICES = {"InferParameter": "parameter_choice"}  # of whose fields one is there
_MOST_PARTS = 1024
_PART = 2  # the wire type of whatever is long


@cache
def messages() -> dict[str, type]:
    """The classes by name, apart from whoever else has loaded such.

    Example:

    >>> made = messages()["ModelReadyRequest"](name="age", version="1")
    >>> made.SerializeToString()
    b'\\n\\x03age\\x12\\x011'

    Reference: "Open Inference Protocol" of KServe, gRPC.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    about = {"name": "kerasmlp/inference.proto", "package": "inference", "syntax": "proto3"}
    file = descriptor_pb2.FileDescriptorProto(**about)
    made: dict = {"": file}
    for name, fields in _MESSAGES.items():
        owner, _, own = name.rpartition(".")
        place = made[owner].nested_type if owner else file.message_type
        message = made[name] = place.add(name=own)
        if choice := _CHOICES.get(name):
            message.oneof_decl.add(name=choice)
        for number, text in enumerate(fields.split(", ") if fields else (), 1):
            field = _add_field(message, name, number, *text.split())
            if choice:
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = ((name, pool.FindMessageTypeByName(f"inference.{name}")) for name in _MESSAGES)
    return {name: message_factory.GetMessageClass(one) for name, one in found}


def _add_field(message, owner: str, number: int, *words: str):
    *how, kind, name = words
    field = message.field.add(name=name, number=number)
    if how == ["map"]:
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        _add_field(entry, "", 1, "string", "key")
        _add_field(entry, "", 2, kind, "value")
        kind = f"{owner}.ParametersEntry"
    field.label = field.LABEL_REPEATED if how else field.LABEL_OPTIONAL
    if kind[0].isupper():
        field.type, field.type_name = field.TYPE_MESSAGE, f".inference.{kind}"
    else:
        field.type = field.Type.Value(f"TYPE_{kind.upper()}")
    return field


def parse(name: str, body: bytes):
    """Reads a message that holds nothing but what is known.

    Raises:
        InputError: if the bytes are no such message.
    """
    from google.protobuf.message import DecodeError

    try:
        message = messages()[name].FromString(body)
    except DecodeError:
        reject_file("message", f"must be a {name}", f"{len(body)} other bytes")
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        reject_file("message", f"must hold only what a {name} has", "further fields")
    return message


def parts_of(body: bytes) -> tuple[str, str, int]:
    """Looks at a ModelInferRequest before it is read, which may take long.

    Returns:
        The name and the version of its model, and of how many bytes it is beside raw tensors.

    Raises:
        InputError: if it is none, or of more parts than any needs.

    Example:

    >>> tensors = {"raw_input_contents": [bytes(100)]}
    >>> made = messages()["ModelInferRequest"](model_name="age", model_version="2", **tensors)
    >>> parts_of(made.SerializeToString())
    ('age', '2', 10)
    """
    fields = messages()["ModelInferRequest"].DESCRIPTOR.fields_by_number
    texts, at, parts, raw = {"model_name": "", "model_version": ""}, 0, 0, 0
    try:
        while at < len(body):
            key, (size, at) = body[at], _varint(body, at + 1)
            field, parts = fields[key >> 3].name if key & 7 == _PART else "", parts + 1
            content = body[at : at + size] if field in texts else b""
            at += size
            if not field or at > len(body):
                raise IndexError
            if parts > _MOST_PARTS:
                refuse("message", f"must be of at most {_MOST_PARTS} parts", "more")
            if field in texts:
                texts[field] = content.decode()
            raw += size if field == "raw_input_contents" else 0
    except (IndexError, KeyError, UnicodeDecodeError):
        reject_file("message", "must be a ModelInferRequest", f"{len(body)} other bytes")
    return *texts.values(), len(body) - raw


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for i in range(5):
        value |= (body[at + i] & 127) << (7 * i)
        if body[at + i] < 128:
            return value, at + i + 1
    raise IndexError
