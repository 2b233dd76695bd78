"""Sets two cross-validations on the same seeds and folds side by side; ends with one line of JSON.

p is that of the corrected resampled t-test (Nadeau and Bengio, 2003), which
allows for training sets that overlap.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, help="folder of `cross-validate`")
    parser.add_argument("b", type=Path, help="another one, with the same data, seeds and folds")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.cross_validation.comparison import compare, comparison_table

    result = compare(args.a, args.b)
    print(comparison_table(result))
    print(json.dumps(result))
