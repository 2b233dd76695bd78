"""Predicts from photos or a store: JSON lines or CSV, and photos with boxes drawn.

Each answer comes from the mean of --num-samples stochastic passes (MC
dropout), with every measure of uncertainty. With --max-risk 0.05 the model
abstains where it is unsure, so that at most 5% of its answers are wrong: a
promise for faces like those it was trained on, with a confidence of 0.9. An
age is wrong where its group is, or with --within-years 5 where it is more than
5 years off. On the screen numbers have six digits, in files (-o) all.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of a training command")
    parser.add_argument("inputs", type=Path, nargs="+", help="photos, folders of photos, stores")
    parser.add_argument(
        "--also", type=Path, action="append", default=[], metavar="RUN", help="a further run"
    )
    parser.add_argument("--num-samples", type=int, default=64, metavar="N", help="default: 64")
    parser.add_argument("--seed", type=int, default=0, help="of the samples; default: 0")
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
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: to the screen")
    parser.add_argument("--force", action="store_true", help="replace the output file")
    photos = parser.add_argument_group("photos")
    photos.add_argument("--model-dir", type=Path, metavar="DIR", help="insightface's .onnx models")
    photos.add_argument("--min-det-score", type=float, default=0.5, metavar="SCORE")
    photos.add_argument("--annotate", type=Path, metavar="DIR", help="write photos with boxes here")
    photos.add_argument(
        "--extremes", type=Path, metavar="FILE", help="draw the 10 surest and 10 least sure faces"
    )


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.datasets.photos import photos_of, picture_paths
    from kerasmlp.faces.models import LICENCE_NOTICE
    from kerasmlp.runs.run_folder import RunFolder
    from kerasmlp.runs.training_files import require_training
    from kerasmlp.utils.checks import InputError, check_int, one_sentence, reject, reject_file
    from kerasmlp.utils.files import what_is
    from kerasmlp.utils.tables import RowWriter
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    check_int("--num-samples", args.num_samples, minimum=0)
    check_int("--seed", args.seed, minimum=0)
    _check_tables(args)
    stores = [p for p in args.inputs if p.suffix in (".h5", ".hdf5")]
    photos = [q for p in args.inputs if p not in stores for q in photos_of(p)]
    for output in filter(None, (args.output, args.extremes)):
        if output.exists():
            if output in (*stores, *photos):
                reject_file(output, "must not be the output too", "an input")
            if not args.force:
                reject_file(output, "must not exist yet (or give --force)", what_is(output))
    if photos and args.model_dir is None:
        reject("--model-dir", f"must be given for photos ({LICENCE_NOTICE})", None)
    if args.annotate and not photos:
        reject("--annotate", "must come with photos", str(args.annotate))
    if args.extremes:
        _check_extremes(args, photos)
    for path in (args.run, *args.also):
        require_training(RunFolder(path))
    import_tensorflow()
    from kerasmlp.runs.extremes import Extremes
    from kerasmlp.runs.photo_answers import predict_photo, predict_store
    from kerasmlp.runs.predictor import open_predictors

    how = {k: getattr(args, k) for k in ("num_samples", "max_risk", "within_years")}
    predictors = open_predictors((args.run, *args.also), **how)
    names = [p.name for p in predictors]
    how["seed"] = args.seed
    finder = None
    if photos:
        from kerasmlp.faces.finder import FaceFinder

        finder = FaceFinder(args.model_dir, min_det_score=args.min_det_score)
        for predictor in predictors:
            predictor.check(args.model_dir, finder.width, finder.info)
            if predictor.config["embedder"] is None:
                about = f"{predictor.path} does not say which embedder it was trained on"
                print(f"note: {about}: with another one its answers mean nothing", file=sys.stderr)
    pictures: list[Path | None] = [None] * len(photos)
    if args.annotate:
        args.annotate.mkdir(mode=0o700, parents=True, exist_ok=True)
        pictures = picture_paths(photos, args.annotate)

    extremes = [Extremes(name) for name in names if args.extremes]
    unreadable: list[str] = []
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(RowWriter(args.output, args.format))
        for store in stores:
            for row in predict_store(predictors, store, progress=sys.stderr.isatty(), **how):
                writer.write(row if args.output else _rounded(row))
        for photo, picture in _bar(list(zip(photos, pictures, strict=True))):
            try:
                rows = predict_photo(
                    predictors, finder, photo, annotate=picture, extremes=extremes, **how
                )
            except InputError as error:
                unreadable.append(str(error))
                if len(unreadable) > 1:
                    print(f"also: {one_sentence(error)}", file=sys.stderr)
                continue
            for row in rows:
                writer.write(row if args.output else _rounded(row))
    if extremes and extremes[0].lowest:
        from kerasmlp.runs.figures import extreme_faces

        extreme_faces(extremes, args.extremes)
    if unreadable:
        raise InputError(unreadable[0])
    if extremes and not extremes[0].lowest:
        reject("--extremes", "must come with photos that show a face", f"{len(photos)} without")
    if args.output:
        print(args.output)
    elif not (stores or photos):
        reject_file(args.inputs[0], "must hold photos", "none")


def _check_extremes(args: argparse.Namespace, photos: list[Path]) -> None:
    from kerasmlp.utils.checks import reject
    from kerasmlp.utils.files import require_file_place

    if not photos:
        reject("--extremes", "must come with photos", str(args.extremes))
    if not args.num_samples:
        reject("--num-samples", "must be >= 1 for --extremes", args.num_samples)
    if args.extremes == args.output:
        reject("--extremes", "must be another file than --output", str(args.extremes))
    require_file_place(args.extremes)


def _check_tables(args: argparse.Namespace) -> None:
    """A table or an array would be taken for a photo: it has to become a store first."""
    from kerasmlp.data.stores.store_file import reject_table

    for path in args.inputs:
        reject_table(path, "a photo, a folder of photos or an embedding store")


def _rounded(value: Any) -> Any:
    """Numbers as people read them, to six digits."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _bar(photos: list[tuple]):
    from tqdm import tqdm

    return tqdm(photos, unit="photo", disable=len(photos) < 2 or not sys.stderr.isatty())
