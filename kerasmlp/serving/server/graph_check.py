"""What a SavedModel would do, read before anything of it is loaded."""

import math
import os
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kerasmlp.serving.server.graph_fields import check_fields
from kerasmlp.serving.server.private_copy import OTHERS
from kerasmlp.utils.checks import reject_file

_COMPUTING = """
AddV2 All ArgMax Assert BatchMatMulV2 BiasAdd BitwiseAnd BitwiseXor BroadcastTo Cast Const Cumsum
Equal Exp ExpandDims Fill FloorDiv GatherV2 Greater GreaterEqual Identity If IsFinite Less LessEqual
Log LogicalAnd LogicalOr MatMul Max Maximum Mean Minimum Mul Neg NoOp Pack Pad PadV2 Range
ReadVariableOp RealDiv Relu Reshape RightShift Rsqrt SelectV2 Shape Size Softmax Softplus Sqrt
Square Squeeze StatefulPartitionedCall StatelessIf StridedSlice Sub Sum Tile TopKV2 Transpose While
"""
COMPUTING = frozenset(_COMPUTING.split())
"""Operations of the exports of this package: none reads, writes or sends anything."""

_KINDS = {"user_object", "asset", "variable", "function", "bare_concrete_function"}
_CLASSES = {
    "_generic_user_object",
    "signature_map",
    "trackable_dict_wrapper",
    "trackable_list_wrapper",
}
_MAX_CONSTANTS = 1 << 24  # numbers; a few bytes of a file can stand for any number of them
_CONFIG = bytes.fromhex("0a070a0343505510010a070a03475055100032024a0038018201009201024a00")
"""What TensorFlow writes beside a call: how the function is optimized."""


def answering_part(path: Path, content: bytes) -> bytes:
    """A SavedModel with what its signatures need of another, checked.

    Its functions consist of `COMPUTING`, and nothing of it has a field or
    attribute that no export has. The functions that TensorFlow adds to save
    weights, which write and read files, are left out. Such a model can still
    answer nonsense, or take long.

    Raises:
        InputError: naming the first operation, or else, that no export has.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        graphs = SavedModel.FromString(content).meta_graphs
    except (DecodeError, RecursionError, ValueError):
        reject_file(path, "must be a complete SavedModel", "other contents")
    refuse = _refusing(path)
    # One without objects, or of several graphs, is loaded in another way, which runs the graph.
    if len(graphs) != 1 or not graphs[0].HasField("object_graph_def"):
        refuse(f"{len(graphs)} graphs, or one without objects")
    (graph,) = graphs
    kept = SavedModel(saved_model_schema_version=1)
    part = kept.meta_graphs.add()
    part.graph_def.versions.CopyFrom(graph.graph_def.versions)
    for name, definition in graph.signature_def.items():
        part.signature_def[name].CopyFrom(definition)
    names = set(_answering(graph.object_graph_def, refuse))
    _keep_objects(graph.object_graph_def, part.object_graph_def, names, refuse)
    _keep_functions(graph.graph_def.library, part.graph_def.library, names, refuse)
    kept.DiscardUnknownFields()
    parts = [*part.graph_def.library.function, *part.object_graph_def.nodes]
    parts += [*part.object_graph_def.concrete_functions.values(), *part.signature_def.values()]
    for one in (*parts, part.graph_def.versions):
        check_fields(one, refuse)
    return kept.SerializeToString()


def check_weights(path: Path, variables: Path) -> None:
    """Rejects weights that would be restored in another way than by their names.

    Args:
        path: Of their file, to be named.
        variables: How the names of their files begin, in a copy.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    try:
        reader = tf.train.load_checkpoint(os.fspath(variables))
        objects = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    except Exception:  # an altered file may fail anywhere, in any way
        reject_file(path, "must be the index of a SavedModel's weights", "other contents")
    check_fields(objects, _refusing(path))


def _refusing(path: Path) -> Any:
    return partial(reject_file, path, f"must hold only what exports of this package do {OTHERS}")


def _answering(objects: Any, refuse: Any) -> Iterator[str]:
    """Names of the functions of the signatures."""
    try:
        (found,) = [c.node_id for c in objects.nodes[0].children if c.local_name == "signatures"]
        for child in objects.nodes[found].children:
            yield objects.nodes[child.node_id].bare_concrete_function.concrete_function_name
    except (IndexError, ValueError):
        refuse("a graph without signatures")


def _keep_objects(objects: Any, kept: Any, names: Collection[str], refuse: Any) -> None:
    """The objects under their numbers: those that nothing needs become empty ones."""
    for one in objects.nodes:
        kind = one.WhichOneof("kind")
        if kind not in _KINDS:
            refuse(f"an object of the kind {kind!r}")
        if kind == "user_object" and one.user_object.identifier not in _CLASSES:
            refuse(f"an object of the class {one.user_object.identifier[:80]!r}")
        if one.registered_name or one.registered_saver or one.saveable_objects:
            refuse("an object that is restored by functions of its own")
        is_other = one.bare_concrete_function.concrete_function_name not in names
        if kind in ("asset", "function") or (kind == "bare_concrete_function" and is_other):
            version = {"producer": 1, "min_consumer": 1}
            kept.nodes.add(user_object={"identifier": "_generic_user_object", "version": version})
        else:
            kept.nodes.add().CopyFrom(one)
    for name in sorted(names & set(objects.concrete_functions)):
        kept.concrete_functions[name].CopyFrom(objects.concrete_functions[name])


def _keep_functions(library: Any, kept: Any, names: Collection[str], refuse: Any) -> None:
    """The functions that are reached from those of the names."""
    from tensorflow.python.framework import op_def_registry

    if library.gradient or library.registered_gradients:
        refuse("functions of gradients")
    functions = {f.signature.name: f for f in library.function}
    if len(functions) != len(library.function):
        refuse("two functions of one name")
    # TensorFlow would take one for the operation wherever that is named.
    for name in functions:
        if op_def_registry.get(name) is not None:
            refuse(f"a function that is called as the operation {name[:80]!r}")
    numbers, reached, ahead = 0, set(), sorted(names)
    while ahead:
        name = ahead.pop()
        if name in reached:
            continue
        reached.add(name)
        if name not in functions:
            refuse(f"a call of {name[:80]!r}")
        kept.function.add().CopyFrom(functions[name])
        for node in kept.function[-1].node_def:
            if node.op not in COMPUTING:
                refuse(f"the operation {node.op[:80]!r}")
            if "config_proto" in node.attr:
                node.attr["config_proto"].s = _CONFIG
            ahead += [v.func.name for v in node.attr.values() if v.HasField("func")]
            numbers += sum(_size(v.tensor, refuse) for v in node.attr.values())
    if numbers > _MAX_CONSTANTS:
        refuse(f"constants of {numbers} numbers")


def _size(tensor: Any, refuse: Any) -> int:
    """How many numbers a constant has; 1 of what is none."""
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if min(sizes, default=0) < 0:
        refuse(f"a constant of shape {str(sizes)[:80]}")
    return math.prod(sizes)
