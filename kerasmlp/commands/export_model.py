"""Exports a run as a SavedModel for TensorFlow Serving, under the next version number.

Signature `serving_default` answers embeddings deterministically, `serve_mc`
from `num_samples` stochastic passes that `seed` decides. Beside the versions
lie `models.config`, batching parameters and a `docker-compose.yml`; those that
are there already are kept. With `--format onnx` or `litert`, DEST is a file, `.onnx`
or `.tflite`: the deterministic model for their runtimes.
"""

import argparse
from pathlib import Path

from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.tensorflow_import import import_tensorflow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of a training command")
    parser.add_argument(
        "destination", type=Path, metavar="DEST", help="folder of the versions, named as the model"
    )
    parser.add_argument("--format", choices=("savedmodel", "onnx", "litert"), default="savedmodel")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.runs.training_files import require_training

    require_training(RunFolder(args.run))
    import_tensorflow()
    if args.format != "savedmodel":
        if args.format == "onnx":
            from kerasmlp.serving.export.onnx_export import export_onnx as export
        else:
            from kerasmlp.serving.export.litert_export import export_litert as export
        export(args.run, args.destination)
        print(args.destination)
        return
    from kerasmlp.serving.export.saved_model import export_model

    result = export_model(args.run, args.destination)
    print(f"{'signatures':12} {', '.join(result['signatures'])}")
    for file, written in result["files"].items():
        print(f"{'written' if written else 'kept':12} {args.destination / file}")
    if not result["calibrated"]:
        print(f"{'calibration':12} none in the run: no conformal intervals, no risk thresholds")
    print(f"{'version':12} {result['version']}")
