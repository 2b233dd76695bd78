"""The deterministic model of a run as one ONNX file."""

import importlib.util
import json
import os
import warnings

import numpy as np

from kerasmlp.serving.export.model_file import new_model_file
from kerasmlp.serving.export.saved_model import describe
from kerasmlp.utils.checks import reject


def export_onnx(run_dir: str | os.PathLike, path: str | os.PathLike) -> None:
    """Writes `embedding` `(rows, width)` → `probabilities` `(rows, classes)`, float32.

    The file's metadata hold, under `kerasmlp`, what `describe` says, as JSON.
    There is no MC dropout: random numbers that follow from a seed are not
    portable between runtimes. Needs tf2onnx.

    Args:
        run_dir: Finished run.
        path: File to write, `.onnx`; must not exist.

    Raises:
        InputError: if there is no finished run, the file cannot be written, or
            tf2onnx is missing.
    """
    with new_model_file(run_dir, path, ".onnx") as (predictor, model, temporary):
        if not importlib.util.find_spec("tf2onnx"):
            reject("tf2onnx", "must be installed to write ONNX (extra `onnx`)", None)
        import onnx

        # Keras exports what has been called.
        model(np.zeros((1, predictor.config["width"]), np.float32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(os.fspath(temporary), format="onnx", verbose=False)
        proto = onnx.load(temporary)
        _name_tensors(proto.graph)
        text = json.dumps(describe(predictor), ensure_ascii=False)
        onnx.helper.set_model_props(proto, {"kerasmlp": text})
        onnx.checker.check_model(proto)
        onnx.save(proto, temporary)


def _name_tensors(graph) -> None:
    """Names the output, and the free dimension of both ends."""
    (output,) = graph.output
    for node in graph.node:
        node.output[:] = ["probabilities" if n == output.name else n for n in node.output]
    output.name = "probabilities"
    for value in (*graph.input, output):
        value.type.tensor_type.shape.dim[0].dim_param = "rows"
