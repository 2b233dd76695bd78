"""Trains the networks of the LayerOut paper with and without freezing layers, and compares.

DATA is an .npz of x_train, y_train, x_test, y_test, CIFAR in its own binary version, or an
image store: grey images (MNIST) train the small network of 491,114 parameters, colour
images (CIFAR) VGG-16 or ResNet-110. Ends with a table like the paper's and one line of JSON.
"""

import argparse

from kerasmlp.commands.image_options import add_image_arguments, run_images
from kerasmlp.commands.number_options import add_number
from kerasmlp.experiments.layer_out.plan import ERASING, MODES, NETWORKS, LayerOutPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = add_image_arguments(
        parser,
        epochs="100, 300, 164 (mnist, vgg16, resnet-110)",
        batch_size="128, 128, 32",
        learning_rate="0.01, 0.1, 0.1",
    )
    group.add_argument(
        "--network", choices=list(NETWORKS), help="default: mnist for grey images, else vgg16"
    )
    group.add_argument(
        "--modes", nargs="+", choices=list(MODES), metavar="MODE",
        help=f"of {', '.join(MODES)}; default: all, of resnet-110 the first three",
    )  # fmt: skip
    erasing = {"dest": "erasing", "choices": list(ERASING), "default": "no"}
    group.add_argument("--random-erasing", **erasing, help="default: %(default)s")
    add_number(group, "--warmup-epochs", int, "default: %(default)s", default=20)


def run(args: argparse.Namespace) -> None:
    def experiment_of(data, settings):
        from kerasmlp.experiments.layer_out.experiment import layer_out_experiment

        fitting = (name for name, of in NETWORKS.items() if of.channels == data.channels)
        plan = LayerOutPlan(
            network=args.network or next(fitting),
            modes=tuple(args.modes) if args.modes else None,
            erasing=args.erasing,
            warmup_epochs=args.warmup_epochs,
            **settings,
        )
        return layer_out_experiment(plan)

    run_images(args, "layerout", experiment_of)
