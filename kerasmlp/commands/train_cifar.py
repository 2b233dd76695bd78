"""Trains ResNets with and without IC layers on small images, and compares.

DATA is CIFAR-10 or CIFAR-100 in its own binary version (a folder with test_batch.bin or
test.bin in it, or the .tar.gz), an .npz of x_train, y_train, x_test, y_test, or an image
store of `build-images`. Ends with a table like the paper's and one line of JSON.
"""

import argparse

from kerasmlp.commands.image_options import add_image_arguments, run_images
from kerasmlp.commands.number_options import add_number
from kerasmlp.experiments.ic_resnet.plan import CifarPlan
from kerasmlp.models.arrangements import ARRANGEMENTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = add_image_arguments(parser, epochs="200", batch_size="64", learning_rate="0.001")
    text = "6n + 2, or 9n + 2 with --bottleneck; default: %(default)s"
    add_number(group, "--depth", int, text, default=110)
    group.add_argument("--bottleneck", action="store_true", help="units of three convolutions")
    group.add_argument(
        "--arrangements", nargs="+", choices=list(ARRANGEMENTS), default=list(ARRANGEMENTS),
        metavar="NAME", help=f"of {', '.join(ARRANGEMENTS)}; default: all",
    )  # fmt: skip
    add_number(group, "--dropout-rate", float, "default: %(default)s", default=0.05)


def run(args: argparse.Namespace) -> None:
    def experiment_of(data, settings):
        from kerasmlp.experiments.ic_resnet.experiment import cifar_experiment

        plan = CifarPlan(
            depth=args.depth,
            bottleneck=args.bottleneck,
            arrangements=tuple(args.arrangements),
            dropout_rate=args.dropout_rate,
            **settings,
        )
        return cifar_experiment(plan)

    run_images(args, "cifar", experiment_of)
