"""What `predict` and `demo` share: the runs that answer, and who finds the faces."""

import argparse
import sys
from pathlib import Path
from typing import Any

from kerasmlp.commands.number_options import add_number
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.tensorflow_import import import_keras


def add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of a training command")
    parser.add_argument(
        "--also", type=Path, action="append", default=[], metavar="RUN", help="a further run"
    )
    add_number(parser, "--num-samples", int, "default: 64", default=64)
    text = "abstain where needed for a share of wrong answers of at most R"
    add_number(parser, "--max-risk", float, text, metavar="R")
    text = "an age is wrong if it is more than K years off (default: if its group is)"
    add_number(parser, "--within-years", float, text, metavar="K")


def open_answering(args: argparse.Namespace, seed: int = 0) -> tuple[list, dict[str, Any]]:
    """The predictors, and how they are to answer: arguments of `Predictor.rows`."""
    from kerasmlp.runs.training_files import require_training

    for path in (args.run, *args.also):
        require_training(RunFolder(path))
    import_keras()
    from kerasmlp.runs.predictors import open_predictors

    how = {k: getattr(args, k) for k in ("num_samples", "max_risk", "within_years")}
    return open_predictors((args.run, *args.also), **how), how | {"seed": seed}


def open_finder(model_dir: Path | None, predictors: list, **how: Any):
    """The finder of the embedder that the predictors know, which embeds as they have learned."""
    from kerasmlp.faces.finder import FaceFinder
    from kerasmlp.runs.photo_answers import want_flips

    finder = FaceFinder(model_dir, flip=want_flips(predictors), **how)
    folder = how.get("embedder") or model_dir
    for predictor in predictors:
        predictor.check(folder, finder.width, finder.info)
        if predictor.config["embedder"] is None:
            about = f"{predictor.path} does not say which embedder it was trained on"
            print(f"note: {about}: with another one its answers mean nothing", file=sys.stderr)
    return finder
