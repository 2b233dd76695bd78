"""A local page: drop a photo, or take one, and see each face with its answers.

Beside ages with 90% intervals, genders and uncertainties of photos (with
--model-dir) it shows the answers of an embedding store. It needs no internet,
keeps nothing, and listens on this machine only. There is no encryption and no
log-in: for other machines, put a proxy before it, and name it with
--allow-host. SIGTERM stops it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path

_MAX_PIXELS = 1 << 26


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of a training command")
    parser.add_argument(
        "--also", type=Path, action="append", default=[], metavar="RUN", help="a further run"
    )
    parser.add_argument(
        "--model-dir", type=Path, metavar="DIR", help="insightface's .onnx models, for photos"
    )
    parser.add_argument("--num-samples", type=int, default=64, metavar="N", help="default: 64")
    parser.add_argument(
        "--max-risk",
        type=float,
        metavar="R",
        help="abstain where needed for a share of wrong answers of at most R",
    )
    parser.add_argument(
        "--within-years",
        type=float,
        metavar="K",
        help="an age is wrong if it is more than K years off (default: if its group is)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME[:PORT]",
        help="a further name by which browsers reach it, as that of a proxy",
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860; 0: a free one")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.runs.run_folder import RunFolder
    from kerasmlp.runs.training_files import require_training
    from kerasmlp.utils.checks import check_int, reject
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    if not importlib.util.find_spec("gradio"):
        reject("gradio", "must be installed for the demo (extra `demo`)", None)
    check_int("--num-samples", args.num_samples, minimum=1)
    for path in (args.run, *args.also):
        require_training(RunFolder(path))
    # read by OpenCV when it is loaded: a file of some kilobytes may hold gigabytes
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(_MAX_PIXELS)
    import_tensorflow()
    from kerasmlp.runs.predictor import open_predictors
    from kerasmlp.serving.demo.answers import DemoAnswers
    from kerasmlp.serving.demo.page import serve_demo

    how = {k: getattr(args, k) for k in ("num_samples", "max_risk", "within_years")}
    predictors = open_predictors((args.run, *args.also), **how)
    finder = None
    if args.model_dir is not None:
        from kerasmlp.faces.finder import FaceFinder

        finder = FaceFinder(args.model_dir)
        for predictor in predictors:
            predictor.check(args.model_dir, finder.width, finder.info)

    def started(url: str) -> None:
        print(f"ready        {url}", flush=True)

    serve_demo(
        DemoAnswers(predictors, finder, **how),
        host=args.host,
        port=args.port,
        also_hosts=args.allow_host,
        started=started,
    )
    print("stopped")
