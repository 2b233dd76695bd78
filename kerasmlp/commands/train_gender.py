"""Trains a gender model on an embedding store into a run folder.

Without arguments it trains on the sample that ships with the checkout. With
--label it learns any other column of classes in the same way.
"""

import argparse

from kerasmlp.commands.training_options import (
    add_test_argument,
    add_training_arguments,
    choose_other_task,
    open_store,
    run_training,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser)
    add_test_argument(parser)


def run(args: argparse.Namespace) -> None:
    store = open_store(args)
    target, recipe = choose_other_task(args, store, args.label or "gender")
    run_training(args, target.label, store, target, recipe)
