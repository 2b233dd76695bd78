"""Trains a gender model on an embedding store into a run folder.

Without arguments it trains on the sample that ships with the checkout. With
--label it learns any other column of classes in the same way; `train` learns
columns of any kind, and several at once.
"""

import argparse

from kerasmlp.commands.task_options import choose_recipe, for_rows, resumed_task
from kerasmlp.commands.training_options import (
    add_test_argument,
    add_training_arguments,
    open_store,
    run_training,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser)
    add_test_argument(parser)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.targets import choose_target

    store = open_store(args)
    target = resumed_task(args)
    if target is None or target.is_age:
        target = choose_target(store, args.label or "gender")
    recipe = for_rows(args, choose_recipe(args, "gender"), store, target)
    run_training(args, target.label, store, target, recipe)
