"""Predicts from photos or a store: JSON lines or CSV, and photos with boxes drawn.

Each answer comes from the mean of --num-samples stochastic passes (MC
dropout), with every measure of uncertainty. With --max-risk 0.05 the model
abstains where it is unsure, so that at most 5% of its answers are wrong: a
promise for faces like those it was trained on, with a confidence of 0.9. An
age is wrong where its group is, or with --within-years 5 where it is more than
5 years off. On the screen numbers have six digits, in files (-o) all.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kerasmlp.commands.answering import add_answer_arguments, open_answering, open_finder
from kerasmlp.commands.face_options import add_face_arguments, finder_of
from kerasmlp.commands.number_options import add_engine, add_workers
from kerasmlp.utils.checks import InputError, check_int, one_sentence, reject, reject_file
from kerasmlp.utils.files import require_file_place, what_is

_TABLE = re.compile(rb'(\{"input": "([^"\\]|\\.)*", "|input,)(row|face)|\s*\Z')
_PICTURE = re.compile(rb"\x89PNG|\Z")
"""How the files begin that are written here; empty ones may be replaced, too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_answer_arguments(parser)
    parser.add_argument("inputs", type=Path, nargs="+", help="photos, folders of photos, stores")
    parser.add_argument("--seed", type=int, default=0, help="of the samples; default: 0")
    text = "default: csv where FILE ends so, else jsonl"
    parser.add_argument("--format", choices=("jsonl", "csv"), help=text)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: to the screen")
    parser.add_argument("--force", action="store_true", help="replace what it wrote before")
    cluster = parser.add_argument_group("a cluster, for stores")
    add_engine(cluster)
    add_workers(cluster, "processes of one core each with --engine ray; default: all cores")
    cluster.add_argument("--resume", action="store_true", help="go on with a killed run of it")
    photos = parser.add_argument_group("photos")
    add_face_arguments(photos, "insightface's .onnx models")
    photos.add_argument("--min-det-score", type=float, default=0.5, metavar="SCORE")
    photos.add_argument("--annotate", type=Path, metavar="DIR", help="write photos with boxes here")
    photos.add_argument(
        "--extremes", type=Path, metavar="FILE", help="draw the 10 surest and 10 least sure faces"
    )


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from kerasmlp.data.datasets.photos import picture_paths
    from kerasmlp.utils.tables import row_writer

    stores, photos = _inputs(args)
    _check_engine(args, photos)
    predictors, how = open_answering(args, args.seed)
    from kerasmlp.runs.extremes import Extremes
    from kerasmlp.runs.photo_answers import predict_photo, predict_store

    if args.engine == "ray":
        _run_by_ray(args, predictors, stores, how)
        return
    finder, pictures = None, [None] * len(photos)
    if photos:
        how_found = {"min_det_score": args.min_det_score} | finder_of(args)
        finder = open_finder(args.model_dir, predictors, **how_found)
    if args.annotate:
        args.annotate.mkdir(mode=0o700, parents=True, exist_ok=True)
        pictures = picture_paths(photos, args.annotate)
    extremes = [Extremes(p.name) for p in predictors if args.extremes]
    unreadable: list[InputError] = []

    def rows() -> Iterator[dict]:
        for store in stores:
            show = {"progress": sys.stderr.isatty(), "opened": _sayer(args, predictors)}
            yield from predict_store(predictors, store, **show, **how)
        if photos:
            _say_of_groups(predictors, None)
        bar = {"unit": "photo", "disable": len(photos) < 2 or not sys.stderr.isatty()}
        for photo, picture in tqdm(list(zip(photos, pictures, strict=True)), **bar):
            drawn = {"annotate": picture, "extremes": extremes}
            try:
                yield from predict_photo(predictors, finder, photo, **drawn, **how)
            except InputError as error:
                unreadable.append(error)
                if len(unreadable) > 1:
                    print(f"also: {one_sentence(error)}", file=sys.stderr)

    with row_writer(args.output, _form(args)) as write:
        for row in rows():
            write(row if args.output else _rounded(row))
    if extremes and extremes[0].lowest:
        from kerasmlp.runs.figures import extreme_faces

        extreme_faces(extremes, args.extremes)
    if unreadable:
        raise unreadable[0]
    if extremes and not extremes[0].lowest:
        reject("--extremes", "must come with photos that show a face", f"{len(photos)} without")
    if args.output:
        print(args.output)
    elif not (stores or photos):
        reject_file(args.inputs[0], "must hold photos", "none")


def _check_engine(args: argparse.Namespace, photos: list[Path]) -> None:
    """Rejects what a cluster, or this machine alone, does not do."""
    from kerasmlp.utils.ray_tasks import check_engine

    if check_engine(args.engine) == "ray":
        if photos:
            requirement = "must be left out for photos (`extract-embeddings` makes a store of them)"
            reject("--engine", requirement, args.engine)
        if args.output is None:
            reject("--output", "must be given with --engine ray", None)
        if args.resume and args.force:
            reject_file("--resume", "must not be given together with --force", "both")
    for option in ("resume", "workers"):
        if args.engine != "ray" and getattr(args, option) not in (None, False):
            reject(f"--{option}", "must come with --engine ray", getattr(args, option))


def _run_by_ray(args: argparse.Namespace, predictors: list, stores: list[Path], how: dict) -> None:
    from kerasmlp.runs.ray_prediction import predict_by_ray

    work = {"workers": args.workers, "resume": args.resume, "force": args.force}
    work |= {"progress": sys.stderr.isatty(), "opened": _sayer(args, predictors)}
    predict_by_ray(predictors, stores, args.output, form=_form(args), **work, **how)
    print(args.output)


def _form(args: argparse.Namespace) -> str:
    by_name = "csv" if args.output and args.output.suffix.lower() == ".csv" else "jsonl"
    return args.format or by_name


def _sayer(args: argparse.Namespace, predictors: list) -> Callable[[Any], None]:
    """What says of a store what is to be known before its answers are read."""
    from kerasmlp.runs.moved import notes_of_store

    def say(store: Any) -> None:
        _say_of_groups(predictors, store)
        for sentence in notes_of_store(predictors, store, args.seed):
            print(f"note: {sentence}", file=sys.stderr)

    return say


def _say_of_groups(predictors: list, store: Any) -> None:
    """Says which rows of a store, or photos, are in none of the groups limits were fitted for."""
    from kerasmlp.runs.conformal_groups import count_in_none

    columns = store and store.labels
    for column in dict.fromkeys(c for p in predictors for c in p.unknown_columns(columns)):
        where = "a photo" if store is None else "the store"
        told = f"{column} is not known of {where}, by which intervals and sets were fitted"
        print(f"note: {told}: those of all rows are given", file=sys.stderr)
    for p in predictors if store is not None else ():
        if p.unknown_columns(columns):
            continue
        if foreign := count_in_none(p.calibration, store.labels, len(store)):
            by = ", ".join(p.calibration.groups.columns)
            told = f"{foreign} of {len(store)} rows are in no group of {by}"
            print(f"note: {p.name}: {told} with limits of its own", file=sys.stderr)


def _inputs(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Stores and photos; what cannot be done with them is said before any work."""
    from kerasmlp.data.datasets.photos import photos_of
    from kerasmlp.data.stores.partial_store import partial_folder
    from kerasmlp.data.stores.store_file import reject_table
    from kerasmlp.data.stores.store_paths import is_store
    from kerasmlp.faces.models import LICENCE_NOTICE

    check_int("--num-samples", args.num_samples, minimum=0)
    check_int("--seed", args.seed, minimum=0)
    for path in args.inputs:  # all these would be taken for photos
        wanted = "a photo, a folder of photos or an embedding store"
        if not is_store(path):
            reject_table(path, wanted)
        if path.suffix in (".json", ".jsonl", ".txt") and path.is_file():
            reject_file(path, f"must be {wanted}", "a text")
    stores = [p for p in args.inputs if is_store(p)]
    photos = [q for p in args.inputs if p not in stores for q in photos_of(p)]
    goes_on = args.resume and args.output is not None and partial_folder(args.output).is_dir()
    _check_output(args.output, _TABLE, [*stores, *photos], args.force or goes_on)
    _check_output(args.extremes, _PICTURE, [*stores, *photos], args.force)
    if photos and args.model_dir is None and args.embedder is None:
        requirement = f"must be given for photos, or --embedder ({LICENCE_NOTICE})"
        reject("--model-dir", requirement, None)
    for option in ("annotate", "extremes"):
        if getattr(args, option) and not photos:
            reject(f"--{option}", "must come with photos", str(getattr(args, option)))
    if args.extremes:
        if not args.num_samples:
            reject("--num-samples", "must be >= 1 for --extremes", args.num_samples)
        if args.extremes == args.output:
            reject("--extremes", "must be another file than --output", str(args.extremes))
        require_file_place(args.extremes)
    return stores, photos


def _check_output(path: Path | None, begins: re.Pattern, inputs: list[Path], force: bool) -> None:
    """Nothing is replaced but what this command wrote."""
    if path is None or not path.exists():
        return
    if path in inputs:
        reject_file(path, "must not be the output too", "an input")
    if not force:
        reject_file(path, "must not exist yet (or give --force)", what_is(path))
    if path.is_file():
        with open(path, "rb") as file:
            if not begins.match(file.read(1 << 16)):
                reject_file(path, "must be of predict to be replaced", "another file")


def _rounded(value: Any) -> Any:
    """Numbers as people read them, to six digits."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
