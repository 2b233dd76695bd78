"""Writes the card of a trained model: data, licences, measures per group, calibration, limits.

Two files with the same content, Markdown and HTML; evaluations that lie in the run folder (see
`evaluate`) are told of, too. Exports hold the same in `assets/model.json`.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of a training command")
    text = "path of both files without .md and .html; default: RUN-card"
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help=text)
    parser.add_argument("--force", action="store_true", help="replace cards that are there")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.runs.card import write_card

    for file in write_card(args.run, args.output, force=args.force):
        print(file)
