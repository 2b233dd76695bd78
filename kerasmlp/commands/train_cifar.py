"""Trains ResNets with and without IC layers on small images, and compares.

DATA is CIFAR-10 or CIFAR-100 in its own binary version (a folder with test_batch.bin or
test.bin in it, or the .tar.gz), or an .npz of x_train, y_train, x_test, y_test. Ends with
a table like the paper's and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from kerasmlp.cifar.plan import CifarPlan
from kerasmlp.commands.training_options import add_run_arguments
from kerasmlp.models.arrangements import ARRANGEMENTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="folder, .tar.gz or .npz of images and classes")
    add_run_arguments(parser)
    group = parser.add_argument_group("experiment", "where nothing is given, as in the paper")
    group.add_argument(
        "--depth", type=int, default=110, metavar="N",
        help="6n + 2, or 9n + 2 with --bottleneck; default: %(default)s",
    )  # fmt: skip
    group.add_argument("--bottleneck", action="store_true", help="units of three convolutions")
    group.add_argument(
        "--arrangements", nargs="+", choices=list(ARRANGEMENTS), default=list(ARRANGEMENTS),
        metavar="NAME", help=f"of {', '.join(ARRANGEMENTS)}; default: all",
    )  # fmt: skip
    group.add_argument("--seeds", type=int, default=1, metavar="N", help="default: %(default)s")
    for name, kind, default, text in (
        ("epochs", int, 200, "of each run"),
        ("batch-size", int, 64, "rows per step"),
        ("learning-rate", float, 1e-3, "at the start"),
        ("dropout-rate", float, 0.05, "of all IC layers"),
    ):
        metavar = "N" if kind is int else "X"
        text += f"; default: {default}"
        group.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=text)
    group.add_argument("--rows", type=int, metavar="N", help="train on the first N images only")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.checks import check_int, check_seed, reject
    from kerasmlp.quiet import import_tensorflow
    from kerasmlp.runs import next_free

    check_int("--seeds", args.seeds, minimum=1)
    check_seed(check_int("--seed", args.seed, minimum=0))
    if args.rows is not None:
        check_int("--rows", args.rows, minimum=1)
    if args.resume and args.run_dir is None:
        reject("--run-dir", "must be given to be resumed", None)
    plan = CifarPlan(
        depth=args.depth,
        bottleneck=args.bottleneck,
        arrangements=tuple(args.arrangements),
        seeds=tuple(range(args.seed, args.seed + args.seeds)),
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        dropout_rate=args.dropout_rate,
        precision=args.precision,
    )
    run_dir = args.run_dir or next_free(Path("runs") / "cifar")
    if args.resume and not run_dir.exists():
        print(f"note: nothing to resume in {run_dir}, beginning", file=sys.stderr)
    import_tensorflow()
    from kerasmlp.cifar.running import run_cifar
    from kerasmlp.image_batches import load_images

    data = load_images(args.data)
    if args.rows is not None:
        data = data.head(args.rows)
    report = run_cifar(data, plan, run_dir, resume=args.resume, force=args.force, progress=True)
    rows = report["rows"]
    print(f"{run_dir}: {len(report['runs'])} runs, {report['seconds']['total']:.1f} s")
    print(
        f"{rows['training']} images trained on, {rows['test']} tested on, "
        f"{report['trainable_parameters']:,} parameters\n"
    )
    print((run_dir / "table.md").read_text(encoding="utf-8"))
    print(json.dumps(report["summary"]))
