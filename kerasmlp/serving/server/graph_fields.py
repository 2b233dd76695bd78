"""What the parts of a SavedModel's answering half are made of, field by field."""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message

_FIELDS = """
ArgAttrs: attr
ArgDef: handle_data name type
AttrValue: b f func i list s shape tensor type
BoolValue: value
DictValue: fields
Dim: size
DtypeAndShape: dtype shape
FullTypeDef: args type_id
FunctionDef: arg_attr attr control_ret node_def ret signature
FunctionSpec: fullargspec input_signature
ListValue: b f i s shape type values
NameAttrList: name
NamedTupleValue: name values
NodeDef: attr experimental_type input name op
ObjectReference: local_name node_id
OpDef: control_output input_arg is_stateful name output_arg
PairValue: key value
SavedBareConcreteFunction: allowed_positional_arguments argument_keywords concrete_function_name
SavedBareConcreteFunction: function_spec
SavedConcreteFunction: bound_inputs canonicalized_input_signature output_signature
SavedObject: bare_concrete_function children user_object variable
SavedUserObject: identifier version
SavedVariable: dtype name shape trainable
SerializedTensor: checkpoint_key full_name name
SignatureDef: inputs method_name outputs
StructuredValue: dict_value list_value named_tuple_value none_value string_value tensor_spec_value
StructuredValue: tuple_value
TensorInfo: dtype name tensor_shape
TensorProto: bool_val double_val dtype float_val int64_val int_val string_val tensor_content
TensorProto: tensor_shape version_number
TensorShapeProto: dim unknown_rank
TensorSpecProto: dtype name shape
TrackableObject: attributes children has_checkpoint_values
TrackableObjectGraph: nodes
TupleValue: values
VersionDef: min_consumer producer
"""
FIELDS = frozenset(
    f"{message}.{field}"
    for message, _, fields in (line.partition(":") for line in _FIELDS.strip().splitlines())
    for field in fields.split()
)

_ATTRIBUTES = """
DstT Index N SrcT T Taxis Tcond Tin Tindices Tout Tparams axis batch_dims begin_mask body cond
config_proto dtype else_branch end_mask f incompatible_shape_error keep_dims new_axis_mask
output_shapes parallel_iterations shrink_axis_mask squeeze_dims then_branch value
_collective_manager_ids _has_manual_control_dependencies _lower_using_switch_merge
_num_original_outputs _output_shapes _read_only_resource_inputs
"""
ATTRIBUTES = {
    "NodeDef": frozenset(_ATTRIBUTES.split()),
    "FunctionDef": frozenset(["_construction_context", "_input_shapes"]),
    "ArgAttrs": frozenset(["_output_shapes", "_user_specified_name"]),
}
"""Of operations, functions and arguments: others can change what runs, as `api_implements`."""

_VALUES = frozenset([1, 2, 3, 7, 9, 10])  # float, double, int32, string, int64, bool
_RESOURCE = 20  # weights on their way to a function
_RESOURCES = frozenset(["ArgDef.type", "ListValue.type"])


def check_fields(message: Message, refuse: Callable[[str], Any]) -> None:
    """Refuses what no export holds, in a part of a SavedModel and all that are in it.

    Example:

    >>> from tensorflow.core.framework.function_pb2 import FunctionDef
    >>> function = FunctionDef()
    >>> function.attr["api_implements"].s = b"other"
    >>> check_fields(function, print)
    the attribute 'api_implements'
    """
    for part in _parts(message):
        for key in getattr(part, "attr", ()) if part.DESCRIPTOR.name in ATTRIBUTES else ():
            if key not in ATTRIBUTES[part.DESCRIPTOR.name]:
                refuse(f"the attribute {key[:80]!r}")
        for field, value in part.ListFields():
            name = f"{part.DESCRIPTOR.name}.{field.name}"
            if name not in FIELDS:
                refuse(f"a {name}")
            if field.enum_type is not None and field.enum_type.name == "DataType":
                kinds = {value} if isinstance(value, int) else set(value)
                known = _VALUES | {_RESOURCE} if name in _RESOURCES else _VALUES
                if kinds - known:
                    refuse(f"{name} {min(kinds - known)}")


def _parts(message: Message) -> Iterator[Message]:
    """The message and all that are in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if isinstance(value, Message):
            value = [value]
        elif field.message_type.GetOptions().map_entry:
            value = [v for v in value.values() if isinstance(v, Message)]
        for part in value:
            yield from _parts(part)
