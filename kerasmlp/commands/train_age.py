"""Trains an age model on an embedding store into a run folder.

Without arguments it trains on the sample that ships with the checkout. A
store with years is learned by years; --classes says what is measured.
"""

from __future__ import annotations

import argparse

from kerasmlp.commands.training_options import (
    add_training_arguments,
    choose_recipe,
    open_store,
    run_training,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser)
    parser.add_argument(
        "--classes",
        metavar="C",
        help="years, adience, fairface, or bins such as 0-12,13-19,20+ "
        "(default: years, or the groups that the store names)",
    )
    parser.add_argument(
        "--label-sigma-years",
        type=float,
        metavar="X",
        help="spread of the soft label around an age; 0: learn the classes themselves",
    )


def run(args: argparse.Namespace) -> None:
    from kerasmlp.targets import choose_age_target

    store = open_store(args)
    years = "age_years" in store.labels if args.label is None else args.label == "age_years"
    recipe = choose_recipe(args, "age" if years else "age-groups")
    by_years = recipe.label_sigma_years > 0
    target = choose_age_target(store, args.label, args.classes, by_years=by_years)
    run_training(args, "age", store, target, recipe)
