"""`--json`: tables are for people, one line at the end for programs."""

import argparse
import json
from typing import Any


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")


def print_json(args: argparse.Namespace, value: Any) -> None:
    if args.json:
        print(json.dumps(value))
