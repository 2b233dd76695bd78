"""What `train-age-cnn` and `tune-age-cnn` share: options, and the recipe that they say."""

from __future__ import annotations

import argparse
from pathlib import Path

from kerasmlp.commands.training_options import add_precision_argument, add_run_arguments


def add_age_cnn_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, metavar="STORE", help="of build-images --gray")
    add_precision_argument(add_run_arguments(parser))
    parser.add_argument(
        "--preset", type=Path, metavar="FILE",
        help="JSON of network and hyperparameters (default: the paper's)",
    )  # fmt: skip


def choose_age_cnn_recipe(args: argparse.Namespace, **changes):
    """The preset with the values that were given on top."""
    from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe

    recipe = AgeCNNRecipe() if args.preset is None else AgeCNNRecipe.from_file(args.preset)
    return recipe.replace(**{k: v for k, v in changes.items() if v is not None})
