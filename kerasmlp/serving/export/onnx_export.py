"""The deterministic model of a run as one ONNX file."""

import importlib.util
import os
import warnings

import numpy as np

from kerasmlp.serving.export.model_file import new_model_file
from kerasmlp.utils.checks import reject, reject_file


def export_onnx(run_dir: str | os.PathLike, path: str | os.PathLike) -> None:
    """Writes `embedding` `(rows, width)` → the outputs of `ModelFile`, float32.

    They are `probabilities` `(rows, classes)`, or `number` and `std` `(rows,)`.
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
    with new_model_file(run_dir, path, ".onnx") as file:
        if not importlib.util.find_spec("tf2onnx"):
            reject("tf2onnx", "must be installed to write ONNX (extra `onnx`)", None)
        if "embedding" in file.model.output:
            requirement = "must have no output of the name of the input, to be written as ONNX"
            reject_file(run_dir, requirement, "a label `embedding`")
        import onnx

        # Keras exports what has been called.
        file.model(np.zeros((1, file.model.input_shape[-1]), np.float32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file.model.export(os.fspath(file.temporary), format="onnx", verbose=False)
        proto = onnx.load(file.temporary)
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "rows"
        onnx.helper.set_model_props(proto, {"kerasmlp": file.description})
        onnx.checker.check_model(proto)
        onnx.save(proto, file.temporary)
