"""An embedder of a few kilobytes, with random weights, and its `embedder.json`."""

import json

import numpy as np
import onnx
from onnx import helper, numpy_helper

SAYS = {
    "input_size": [24, 24],
    "layout": "nchw",
    "colour_order": "rgb",
    "mean": [127.5, 127.5, 127.5],
    "std": [64, 64, 64],
    "alignment": "none",
    "normalize": True,
    "licence": "CC0",
    "source": "random numbers",
}
WIDTH = 8


def says(**changes):
    """An `embedder.json` with changes; None takes a name away."""
    return {k: v for k, v in {**SAYS, **changes}.items() if v is not None}


def write_embedder(folder, *, content=None, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.onnx").write_bytes(tiny_onnx() if content is None else content)
    (folder / "embedder.json").write_text(json.dumps(says(**changes)))
    return folder


def tiny_onnx(*, batch="n", sides=(24, 24), channels=3, kind="vectors", scale=1.0, seed=0):
    """A convolution, its mean over the picture, and a matrix.

    Args:
        batch: Number of pictures, or the name of any number.
        sides: Height and width.
        channels: Of the pictures.
        kind: `"vectors"`, `"maps"` (no mean), `"two"` (both), `"mixed"` (each answer less the
            mean over the batch), `"bound"` (a shape that only one picture has) or `"numbers"`
            (whole ones).
        scale: Of the matrix; NaN gives NaN.
        seed: Of the weights.
    """
    rng = np.random.default_rng(seed)
    filters = rng.normal(0, 0.3, (6, channels, 3, 3)).astype(np.float32)
    matrix = rng.normal(0, 1, (6, WIDTH)).astype(np.float32) * np.float32(scale)
    weights = [
        numpy_helper.from_array(filters, "filters"),
        numpy_helper.from_array(matrix, "matrix"),
    ]
    nodes = [
        helper.make_node("Conv", ["pictures", "filters"], ["maps"], strides=[2, 2]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["product"]),
    ]
    if kind == "mixed":
        nodes.append(helper.make_node("ReduceMean", ["product"], ["mean"], axes=[0]))
        nodes.append(helper.make_node("Sub", ["product", "mean"], ["others"]))
        nodes.append(helper.make_node("Add", ["others", "others"], ["vectors"]))
    elif kind == "bound":
        weights.append(numpy_helper.from_array(np.array([1, WIDTH]), "one"))
        nodes.append(helper.make_node("Reshape", ["product", "one"], ["vectors"]))
    elif kind == "numbers":
        nodes.append(helper.make_node("Cast", ["product"], ["vectors"], to=onnx.TensorProto.INT64))
    else:
        nodes.append(helper.make_node("Identity", ["product"], ["vectors"]))
    shapes = {"vectors": [batch, WIDTH], "maps": [batch, 6, None, None]}
    names = {"maps": ["maps"], "two": ["vectors", "maps"]}.get(kind, ["vectors"])
    value = helper.make_tensor_value_info
    answers = onnx.TensorProto.INT64 if kind == "numbers" else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "tiny",
        [value("pictures", onnx.TensorProto.FLOAT, [batch, channels, *sides])],
        [value(name, answers, shapes[name]) for name in names],
        weights,
    )  # fmt: skip
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
