"""What `train-cifar` and `train-layerout` share: their options, and from options to a table."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerasmlp.commands.json_line import print_json
from kerasmlp.commands.number_options import add_number, how_to_work
from kerasmlp.commands.training_options import (
    add_precision_argument,
    add_run_arguments,
    open_run,
)


def add_image_arguments(
    parser: argparse.ArgumentParser, *, epochs: str, batch_size: str, learning_rate: str
) -> argparse._ArgumentGroup:
    """Adds the options of a plan; the arguments are its defaults in words."""
    parser.add_argument(
        "data", type=Path, help="images and classes: .npz, .h5, or folder or .tar.gz of CIFAR"
    )
    add_number(parser, "--rows", int, "train on the first N images only")
    add_run_arguments(parser)
    group = parser.add_argument_group("experiment", "where nothing is given, as in the paper")
    add_number(group, "--seeds", int, "default: %(default)s", default=1)
    add_number(group, "--epochs", int, f"default: {epochs}")
    add_number(group, "--batch-size", int, f"default: {batch_size}")
    add_number(group, "--learning-rate", float, f"default: {learning_rate}")
    add_precision_argument(group)
    return group


def run_images(
    args: argparse.Namespace, name: str, experiment_of: Callable[[Any, dict], Any]
) -> None:
    """Runs an experiment, and prints what came out.

    Args:
        args: With the options above.
        name: Of the folder in `runs/` if none is given.
        experiment_of: From images and the given settings of a plan to the experiment.
    """
    from kerasmlp.utils.checks import check_int, check_optional_int, check_seed
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    check_int("--seeds", args.seeds, minimum=1)
    check_seed(check_int("--seed", args.seed, minimum=0))
    check_optional_int("--rows", args.rows, minimum=1)
    run_dir = open_run(args, name)
    import_tensorflow()
    from kerasmlp.experiments.image_runs import run_experiment
    from kerasmlp.training.image_batches import load_images
    from kerasmlp.training.precision import default_policy

    data = load_images(args.data)
    if args.rows is not None:
        data = data.head(args.rows)
    settings = {k: getattr(args, k) for k in ("epochs", "batch_size", "learning_rate")}
    settings = {k: v for k, v in settings.items() if v is not None}
    settings["seeds"] = tuple(range(args.seed, args.seed + args.seeds))
    settings["precision"] = args.precision or default_policy()
    report = run_experiment(experiment_of(data, settings), data, run_dir, **how_to_work(args))
    rows = report["rows"]
    print(f"{run_dir}: {len(report['runs'])} runs, {report['seconds']['total']:.1f} s")
    print(
        f"{rows['training']} images trained on, {rows['test']} tested on, "
        f"{report['trainable_parameters']:,} parameters\n"
    )
    print((run_dir / "table.md").read_text(encoding="utf-8"))
    print_json(args, report["summary"])
