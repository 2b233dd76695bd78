"""Finds rows that are nearly the same, such as another copy of a photo, within and across stores.

Their cosine lies above the valley between duplicates, near 1, and the nearest neighbours of
most rows; where there is no valley, only equal rows count, unless --threshold is given. What
one fold (column `fold`) or store has of another is counted. Rows of two persons are not alike,
nor are most photos of one: look at the pairs before you believe them (--output, --photos).
"""

import argparse
import sys
from pathlib import Path

from kerasmlp.commands.json_line import add_json_argument, print_json
from kerasmlp.commands.number_options import add_number

_MOST_FOLDS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, nargs="+", help="embedding store, or several")
    text = "cosine of duplicates at least (default: that of the valley)"
    add_number(parser, "--threshold", float, text)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="new folder for report, pairs.csv and pictures"
    )
    text = "draw pairs, too: folder of the photos that a store names, or one for each store"
    parser.add_argument("--photos", type=Path, nargs="+", metavar="DIR", help=text)
    text = "copy of each store in which near-duplicates share a `group`"
    parser.add_argument("--write-groups", type=Path, nargs="+", metavar="NEW_STORE", help=text)
    parser.add_argument("--seed", type=int, default=0, help="of a search in many rows; default: 0")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.duplicates.grouped_copies import check_copies, write_groups
    from kerasmlp.data.duplicates.near_duplicates import near_duplicates
    from kerasmlp.data.duplicates.opened import opened_rows
    from kerasmlp.data.row_photos import RowPhotos, photo_column
    from kerasmlp.evaluation.duplicates_report import count_duplicates, write_duplicates
    from kerasmlp.utils.checks import reject, reject_file
    from kerasmlp.utils.files import new_folder, require_new_folder

    if args.output is not None:
        require_new_folder(args.output)
    if args.photos and (args.output is None or len(args.photos) not in (1, len(args.store))):
        requirement = "must come with --output, and be one folder or one for each store"
        reject("photos", requirement, [str(folder) for folder in args.photos])
    if args.write_groups:
        check_copies(args.write_groups, args.store)
    photos = [RowPhotos(folder) for folder in args.photos or ()]
    parts = opened_rows(args.store)
    for part in parts if photos else ():
        if photo_column(part.labels, needed=False) is None:
            requirement = "must name photos in a column `path` or in one alone, for --photos"
            reject_file(part.name, requirement, ", ".join(part.labels) or "no labels")
    how = {"threshold": args.threshold, "seed": args.seed, "progress": sys.stderr.isatty()}
    found = near_duplicates(parts, **how)
    counts = count_duplicates(found, parts)
    _print_counts(counts, found)
    if args.output is not None:
        with new_folder(args.output) as folder:
            drawn = write_duplicates(folder, found, counts, parts, photos)
        print(f"\n{args.output}: report.json, pairs.csv and pictures")
        if args.photos and not drawn:
            print("note: of no pair are both photos there, or can be read", file=sys.stderr)
    if args.write_groups:
        write_groups(found, parts, args.write_groups)
        for path in args.write_groups:
            print(f"{path}: a copy with the column `group`")
    print_json(args, counts)


def _print_counts(counts: dict, found) -> None:
    print(_of_threshold(found))
    if found.threshold is not None and found.recall is not None:
        print(
            "not each row was compared with each: of rows turned to a cosine of "
            f"{found.threshold:.3f}, {found.recall:.1%} were found again"
        )
    rows = [["", "pairs", "in one group already", "rows", "groups"]]
    for part in counts["within"]:
        keys = ("pairs", "grouped_already", "rows", "groups")
        rows.append([f"within {part['store']}", *(f"{part[key]:,}" for key in keys)])
    for part in counts["across"]:
        a, b = part["stores"]
        both = " + ".join(f"{n:,}" for n in part["rows"])
        rows.append([f"{a} and {b}", f"{part['pairs']:,}", "", both, ""])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    print()
    for first, *others in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join([f"{first:{widths[0]}}", *cells]).rstrip())
    for line in _of_crossings(counts):
        print(line)


def _of_threshold(found) -> str:
    if found.threshold is None:
        return (
            "note: nearest neighbours show no second mode near 1, so no threshold follows from "
            "them: only equal rows are counted (--threshold counts others)"
        )
    if found.derived:
        where = "in the valley between duplicates and other neighbours"
        return f"threshold: a cosine of {found.threshold:.3f}, {where}"
    return f"threshold: a cosine of {found.threshold:g}, as given"


def _of_crossings(counts: dict) -> list[str]:
    """What a test has seen: sentences on folds and stores that share duplicates."""
    folds = sorted(counts["folds"], key=lambda part: -part["rows"])
    said = [
        f"note: {part['rows']:,} of the {part['of_rows']:,} rows of fold {part['fold']} "
        f"have a duplicate in another fold of {part['store']}"
        for part in folds[:_MOST_FOLDS]
        if part["rows"]
    ]
    sizes = {part["store"]: part["of_rows"] for part in counts["within"]}
    for part in counts["across"]:
        both = part["stores"], part["stores"][::-1]
        for (name, other), rows in zip(both, part["rows"], strict=True):
            if rows:
                of = f"{rows:,} of the {sizes[name]:,} rows of {name}"
                said.append(f"note: {of} have a duplicate in {other}")
    return said
