"""Trains the networks of the LayerOut paper with and without freezing layers, and compares.

The .npz holds x_train, y_train, x_test, y_test: grey images (MNIST) train the small
network of 491,114 parameters, colour images (CIFAR) VGG-16. Ends with a table
like the paper's and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from kerasmlp.commands.training_options import add_precision_argument, add_run_arguments
from kerasmlp.layer_out.plan import ERASING, MODES, NETWORKS, LayerOutPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help=".npz of images and classes")
    add_run_arguments(parser)
    group = parser.add_argument_group("experiment", "where nothing is given, as in the paper")
    group.add_argument(
        "--modes", nargs="+", choices=list(MODES), default=list(MODES), metavar="MODE",
        help=f"of {', '.join(MODES)}; default: all",
    )  # fmt: skip
    group.add_argument("--seeds", type=int, default=1, metavar="N", help="default: %(default)s")
    group.add_argument(
        "--random-erasing", choices=list(ERASING), default="no", help="default: %(default)s"
    )
    group.add_argument("--epochs", type=int, metavar="N", help="default: 100 (MNIST), 300 (CIFAR)")
    group.add_argument(
        "--warmup-epochs", type=int, default=20, metavar="N", help="default: %(default)s"
    )
    group.add_argument("--batch-size", type=int, default=128, metavar="N", help="default: 128")
    group.add_argument("--learning-rate", type=float, metavar="X", help="default: 0.01, 0.1")
    add_precision_argument(group)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.checks import check_int, check_seed, reject
    from kerasmlp.quiet import import_tensorflow
    from kerasmlp.runs import next_free

    check_int("--seeds", args.seeds, minimum=1)
    check_seed(check_int("--seed", args.seed, minimum=0))
    if args.resume and args.run_dir is None:
        reject("--run-dir", "must be given to be resumed", None)
    settings = {
        "modes": tuple(args.modes),
        "seeds": tuple(range(args.seed, args.seed + args.seeds)),
        "erasing": args.random_erasing,
        "epochs": args.epochs,
        "warmup_epochs": args.warmup_epochs,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
    }
    run_dir = args.run_dir or next_free(Path("runs") / "layerout")
    if args.resume and not run_dir.exists():
        print(f"note: nothing to resume in {run_dir}, beginning", file=sys.stderr)
    import_tensorflow()
    from kerasmlp.image_batches import load_images
    from kerasmlp.layer_out.running import run_layer_out
    from kerasmlp.precision import default_policy

    data = load_images(args.data)
    network = next(name for name, of in NETWORKS.items() if of.channels == data.channels)
    plan = LayerOutPlan(network=network, precision=args.precision or default_policy(), **settings)
    report = run_layer_out(data, plan, run_dir, resume=args.resume, force=args.force, progress=True)
    rows = report["rows"]
    print(f"{run_dir}: {len(report['runs'])} runs, {report['seconds']['total']:.1f} s")
    print(
        f"{rows['training']} images trained on, {rows['test']} tested on, "
        f"{report['trainable_parameters']:,} parameters\n"
    )
    print((run_dir / "table.md").read_text(encoding="utf-8"))
    print(json.dumps(report["summary"]))
