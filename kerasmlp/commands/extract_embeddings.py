"""Photos → embedding store: finds the faces and embeds them, with insightface's models or others.

insightface's models are not part of kerasmlp and are for non-commercial research only.
With --embedder DIR another one embeds: DIR holds it as .onnx or .keras, and embedder.json
says how it is to be asked. With --detector none pictures are taken whole.
The store keeps each photo's relative path as label `path`: faces and their
embeddings are personal data, guard them as such.
"""

import argparse
import sys

from kerasmlp.commands.face_options import add_embedder_arguments, finder_of
from kerasmlp.commands.number_options import add_engine, add_number, add_workers, how_to_work
from kerasmlp.data.layouts import LAYOUTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="folder of images; for --layout csv a table with the columns path (from the "
        "table's folder) and, where known, age, age_group, gender, fold, group, parted by "
        "commas, semicolons or tabs",
    )
    what = "store to write: .h5, .parquet, or a folder"
    parser.add_argument("-o", "--output", required=True, metavar="STORE", help=what)
    parser.add_argument(
        "--layout", choices=tuple(LAYOUTS), default="folder", help="default: folder"
    )
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--model-dir", metavar="DIR", help="folder of insightface's .onnx models")
    models.add_argument(
        "--download",
        metavar="PACK",
        help="fetch a model pack, such as buffalo_l, to ~/.insightface unless it is there",
    )
    add_embedder_arguments(parser)
    parser.add_argument(
        "--face",
        choices=("only", "centre", "biggest"),
        help="face to take from a photo; default: the only one, or for the crops of adience, "
        "utkface and fairface the one nearest to the centre",
    )
    text = (
        "faces below it do not count; the scale is the detector's: 0.5 fits SCRFD, the "
        "paper's 0.9 RetinaFace-R50 (default: 0.5)"
    )
    add_number(parser, "--min-det-score", float, text, default=0.5, metavar="SCORE")
    text = "embed the mirrored crop too and take the mean; the store and its models remember it"
    parser.add_argument("--flip", action="store_true", help=text)
    text = "rows of each face, of slightly different crops in one `group`; default: 1"
    add_number(parser, "--views", int, text, default=1, metavar="K")
    add_workers(parser)
    add_engine(parser)
    text = "crops in one call of the embedder; default: 1 on a CPU, 32 on a GPU"
    add_number(parser, "--batch-size", int, text)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--resume", action="store_true", help="go on with a killed run")
    parser.add_argument("--force", action="store_true", help="begin anew, replace the store")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.datasets import read_records
    from kerasmlp.data.datasets.removal import removal_table
    from kerasmlp.data.stores.store_info import StoreInfo
    from kerasmlp.faces.extraction import extract_embeddings
    from kerasmlp.faces.models import LICENCE_NOTICE, download_models

    model_dir = args.model_dir
    if args.download:
        print(f"note: {LICENCE_NOTICE}", file=sys.stderr)
        model_dir = download_models(args.download)
    layout = LAYOUTS[args.layout]
    report = extract_embeddings(
        read_records(args.layout, args.source),
        model_dir,
        args.output,
        workers=args.workers,
        engine=args.engine,
        face=args.face or layout.face,
        views=args.views,
        flip=args.flip,
        batch_size=args.batch_size,
        min_det_score=args.min_det_score,
        **finder_of(args),
        device=args.device,
        origin=StoreInfo(source=layout.source, licence=layout.licence),
        **how_to_work(args),
    )
    if "provider" in report:
        print(f"computed by {report['provider']}", file=sys.stderr)
        if report["note"]:
            print(f"note: {report['note']}", file=sys.stderr)
    else:
        doubt = f"; {report['doubt']}" if report["doubt"] else ""
        print(f"note: the store was finished before{doubt}", file=sys.stderr)
    print(removal_table(report))
    print(report["store"])
