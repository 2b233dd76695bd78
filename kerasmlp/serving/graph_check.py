"""What a SavedModel would do, read before anything of it is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerasmlp.checks import reject_file
from kerasmlp.serving.private_copy import OTHERS

_COMPUTING = """
AddV2 All ArgMax Assert BiasAdd BitwiseAnd BitwiseXor BroadcastTo Cast Const Cumsum Equal Exp
ExpandDims Fill FloorDiv GatherV2 Greater GreaterEqual Identity If IsFinite Less LessEqual Log
LogicalAnd LogicalOr MatMul Max Maximum Minimum Mul Neg NoOp Pack Pad PadV2 Placeholder Range
ReadVariableOp RealDiv Relu Reshape RightShift Rsqrt Select SelectV2 Shape Size Softmax Squeeze
StatefulPartitionedCall StatelessIf StridedSlice Sub Sum While
"""
COMPUTING = frozenset(_COMPUTING.split())
"""Operations of the exports of this package: none reads, writes or sends anything."""

_SAVING = """
AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename
StaticRegexFullMatch StringJoin VarHandleOp VarIsInitializedOp
"""
SAVING = frozenset(_SAVING.split())
"""Those of the functions that TensorFlow adds to save weights: no signature may come to them."""

_KINDS = {"user_object", "asset", "variable", "function", "bare_concrete_function"}
_CLASSES = {
    "_generic_user_object",
    "signature_map",
    "trackable_dict_wrapper",
    "trackable_list_wrapper",
}
_ASSETS = {"model.json"}
_MAX_CONSTANT = 1 << 24  # numbers; a few bytes of a file can stand for any number of them


def check_graph(path: Path, content: bytes) -> None:
    """Rejects a SavedModel that could do something else than compute answers.

    It may hold one graph, whose functions consist of `COMPUTING`, and beside
    them those of `SAVING` where no signature or object of it comes to them.
    Such a model can still answer nonsense, or take long.

    Args:
        path: Of its file, to be named.
        content: Of `saved_model.pb`.

    Raises:
        InputError: naming the first operation that no export has.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        graphs = SavedModel.FromString(content).meta_graphs
    except (DecodeError, RecursionError, ValueError):
        reject_file(path, "must be a complete SavedModel", "other contents")
    # One without objects, or of several graphs, is loaded in another way, which runs the graph.
    if len(graphs) != 1 or not graphs[0].HasField("object_graph_def"):
        _refuse(path, f"{len(graphs)} graphs, or one without objects")
    (graph,) = graphs
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    if len(functions) != len(graph.graph_def.library.function):
        _refuse(path, "two functions of one name")
    _check_objects(path, graph)
    reached = set(graph.object_graph_def.concrete_functions)
    places = {"the graph": graph.graph_def.node, **{k: f.node_def for k, f in functions.items()}}
    for place, nodes in places.items():
        for node in nodes:
            if node.op not in COMPUTING | SAVING:
                _refuse(path, f"the operation {node.op[:80]!r}")
            names = set(_functions_of(path, node))
            for name in names - functions.keys():
                _refuse(path, f"a call of {name[:80]!r}")
            if place != "the graph":
                reached |= names
    for name in sorted(reached):
        if name not in functions:
            _refuse(path, f"a call of {name[:80]!r}")
        for node in functions[name].node_def:
            if node.op in SAVING:
                _refuse(path, f"the operation {node.op!r} in what answers")


def _check_objects(path: Path, graph: Any) -> None:
    """Rejects what would run, or be made by a class's own rules, while it is loaded."""
    library = graph.graph_def.library
    if library.gradient or library.registered_gradients:
        _refuse(path, "functions of gradients")
    for asset in graph.asset_file_def:
        if asset.filename not in _ASSETS:
            _refuse(path, f"the asset {asset.filename[:80]!r}")
    for one in graph.object_graph_def.nodes:
        kind = one.WhichOneof("kind")
        if kind not in _KINDS:
            _refuse(path, f"an object of the kind {kind!r}")
        if kind == "user_object" and one.user_object.identifier not in _CLASSES:
            _refuse(path, f"an object of the class {one.user_object.identifier[:80]!r}")
        if one.registered_name or one.registered_saver or one.saveable_objects:
            _refuse(path, "an object that is restored by functions of its own")


def _functions_of(path: Path, node: Any) -> Iterator[str]:
    """Names of the functions that an operation calls; its constants are looked at on the way."""
    for name, value in node.attr.items():
        kind = value.WhichOneof("value")
        if kind == "func":
            yield value.func.name
            if value.func.attr:
                _refuse(path, "a call with attributes")
        elif kind == "list" and (value.list.func or value.list.tensor):
            _refuse(path, f"the list {name[:80]!r} of functions")
        elif kind == "tensor":
            sizes = [dim.size for dim in value.tensor.tensor_shape.dim]
            if min(sizes, default=0) < 0 or math.prod(sizes) > _MAX_CONSTANT:
                _refuse(path, f"a constant of shape {str(sizes)[:80]}")
        elif kind == "placeholder":
            _refuse(path, "an attribute without a value")


def _refuse(path: Path, came: str) -> None:
    reject_file(path, f"must hold only what exports of this package do {OTHERS}", came)
