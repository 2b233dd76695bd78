"""Trains an age model on an embedding store into a run folder.

Without arguments it trains on the sample that ships with the checkout. A
store with years is learned by years and measured in groups; --classes says in
which ones.
"""

import argparse

from kerasmlp.commands.training_options import (
    add_age_arguments,
    add_test_argument,
    add_training_arguments,
    choose_age_task,
    open_store,
    run_training,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser)
    add_test_argument(parser)
    add_age_arguments(parser)


def run(args: argparse.Namespace) -> None:
    store = open_store(args)
    run_training(args, "age", store, *choose_age_task(args, store))
