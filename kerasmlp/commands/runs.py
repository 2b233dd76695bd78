"""Lists run folders, or sets some of them side by side.

    runs list [FOLDER]        every run in it, with its measures on the rows kept back
    runs compare RUN RUN …    the settings in which they differ, and their measures

Measures of runs on different rows are not to be compared: `compare` says where they are. Those
of a recalibrated run are of the rows that it was fitted to.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasmlp.commands.json_line import add_json_argument, print_json

_WIDEST = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    ways = parser.add_subparsers(dest="way", required=True, metavar="list | compare")
    listing = ways.add_parser("list", help="every run in a folder")
    text = "of runs, or of folders of them; default: %(default)s"
    listing.add_argument("folder", type=Path, nargs="?", default=Path("runs"), help=text)
    add_json_argument(listing)
    comparing = ways.add_parser("compare", help="settings that differ, and measures")
    comparing.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a finished run")
    add_json_argument(comparing)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.runs.listing import compare_runs, list_runs, measured_apart

    if args.way == "list":
        rows = list_runs(args.folder)
        _print_list(rows, args.folder)
        print_json(args, {"runs": rows})
        return
    found = compare_runs(args.runs)
    names = [str(path) for path in args.runs]
    if apart := measured_apart(found["settings"]):
        print(f"note: measures are of different rows, for these differ: {', '.join(apart)}\n")
    settings = found["settings"] or {"(no setting differs)": ["" for _ in names]}
    _print_table(["setting", *names], [[k, *v] for k, v in settings.items()])
    print()
    _print_table(["measure", *names], [[k, *v] for k, v in found["measures"].items()])
    print_json(args, found)


def _print_list(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    if not rows:
        print(f"{folder} holds no run")
        return
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "why"))
    _print_table(columns, [[row.get(name, "") for name in columns] for row in rows])
    for row in rows:
        if "why" in row:
            print(f"note: {row['why']}")
    if any(row.get("state") == "recalibrated" for row in rows):
        print("note: measures of recalibrated runs are of the rows that they were fitted to")


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    cells = [list(heads), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(heads))]
    for line in cells:
        first, *rest = zip(line, widths, strict=True)
        print("  ".join([f"{first[0]:<{first[1]}}", *(f"{c:>{w}}" for c, w in rest)]).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
