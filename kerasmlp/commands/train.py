"""Trains a model of any label, or of several at once, on an embedding store into a run folder.

What a label is follows from its column, and is said before it trains: ages in years, age
groups, gender, classes (text, whole numbers, bools) or a number (floats), which is answered
with its uncertainty; --task decides otherwise. Several labels share one trunk and are
answered in one pass. Without --store it trains on the sample that ships with the package.
"""

import argparse

from kerasmlp.commands.task_options import add_task_arguments, choose_task
from kerasmlp.commands.training_options import (
    add_test_argument,
    add_training_arguments,
    open_store,
    run_training,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser, several=True)
    add_test_argument(parser)
    add_task_arguments(parser)


def run(args: argparse.Namespace) -> None:
    store = open_store(args)
    target, recipe = choose_task(args, store)
    run_training(args, target.name, store, target, recipe)
