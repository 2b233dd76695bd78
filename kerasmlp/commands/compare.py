"""Sets two cross-validations on the same seeds and folds side by side.

p is that of the corrected resampled t-test (Nadeau and Bengio, 2003), which
allows for training sets that overlap.
"""

import argparse
from pathlib import Path

from kerasmlp.commands.json_line import add_json_argument, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json_argument(parser)
    parser.add_argument("a", type=Path, help="folder of `cross-validate`")
    parser.add_argument("b", type=Path, help="another one, with the same data, seeds and folds")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.utils.tensorflow_import import import_keras

    import_keras()
    from kerasmlp.experiments.cross_validation.comparison import compare, comparison_table

    result = compare(args.a, args.b)
    print(comparison_table(result))
    print_json(args, result)
