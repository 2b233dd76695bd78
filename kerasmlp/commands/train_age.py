"""Trains an age model on an embedding store into a run folder.

Without arguments it trains on the sample that ships with the checkout. A
store with years is learned by years and measured in groups; --classes says in
which ones.
"""

import argparse

from kerasmlp.commands.task_options import add_age_arguments, choose_recipe, for_rows, resumed_task
from kerasmlp.commands.training_options import (
    add_test_argument,
    add_training_arguments,
    open_store,
    run_training,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser)
    add_test_argument(parser)
    add_age_arguments(parser)
    parser.add_argument(
        "--task",
        choices=("years",),
        help="the label holds ages in years, though its numbers do not look like it",
    )


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.targets import choose_age_target

    store = open_store(args)
    years = "age_years" in store.labels if args.label is None else args.label == "age_years"
    recipe = choose_recipe(args, "age" if years else "age-groups")
    target = resumed_task(args)
    if target is None or not target.is_age:
        how = {"by_years": recipe.label_sigma_years > 0, "are_years": args.task == "years"}
        target = choose_age_target(store, args.label, args.classes, **how)
    run_training(args, "age", store, target, for_rows(args, recipe, store, target))
