"""Options that take a number, a line for each, and what the commands of experiments share."""

import argparse
from collections.abc import Mapping
from typing import Any


def add_number(
    group: argparse._ActionsContainer, flag: str, kind: type, text: str, **more: Any
) -> None:
    """Adds an option for a whole number or any.

    Args:
        group: Of options.
        flag: As it is typed.
        kind: `int` or `float`.
        text: For the help.
        more: As of `add_argument`.
    """
    metavar = "N" if kind is int else "X"
    group.add_argument(flag, type=kind, help=text, **{"metavar": metavar} | more)


def add_hyperparameters(
    group: argparse._ActionsContainer, kinds: Mapping[str, tuple[type, str]]
) -> None:
    """Adds an option for each value of a recipe: its kind, and what it is."""
    for name, (kind, text) in kinds.items():
        add_number(group, f"--{name.replace('_', '-')}", kind, text)


def add_fold_options(group: argparse._ActionsContainer) -> None:
    """Adds into how many folds a store is cut, and by how many workers they are trained."""
    text = "default: those of the store's column, or 5"
    add_number(group, "--folds", int, text, dest="num_folds")
    add_workers(group)


def add_workers(
    group: argparse._ActionsContainer, text: str = "processes of one core each; default: all cores"
) -> None:
    add_number(group, "--workers", int, text)


def add_engine(group: argparse._ActionsContainer) -> None:
    """Adds where the work is done."""
    text = "ray: on the cluster of RAY_ADDRESS, or one started here; default: local"
    group.add_argument("--engine", choices=("local", "ray"), default="local", help=text)


def add_side_by_side(group: argparse._ActionsContainer) -> None:
    text = "runs that a worker trains in one program, N or auto: many on a GPU, else 1"
    how = {"metavar": "N", "default": "auto", "help": text}
    group.add_argument("--side-by-side", type=number_or_auto, **how)


def number_or_auto(word: str) -> int | None:
    """None of `auto`."""
    return None if word == "auto" else int(word)


def how_to_work(args: argparse.Namespace) -> dict[str, bool]:
    """What a command that writes a run folder hands on as it is."""
    return {"resume": args.resume, "force": args.force, "progress": True}
