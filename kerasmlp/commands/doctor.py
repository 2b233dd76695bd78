"""Lists the labels of a store that are hardly right, by a cross-validation on it.

CV is the folder of `cross-validate --save-predictions`: of each row it holds what
models answer that have not learned from it. The most suspicious labels come first
in suspects.csv, with what they look like. Look at each, write what is right into
the column `corrected` (`unknown` where nobody can tell), and have
`import-embeddings STORE --relabel suspects.csv -o NEW` make a store of it.
"""

import argparse
import sys
from pathlib import Path

from kerasmlp.commands.json_line import add_json_argument, print_json
from kerasmlp.commands.number_options import add_number

_MANY = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cross_validation", type=Path, metavar="CV", help="its folder")
    text = "embedding store that it learned from; several in their order"
    parser.add_argument("store", type=Path, nargs="+", metavar="STORE", help=text)
    text = "folder to write; default: a new one in runs/"
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help=text)
    parser.add_argument("--force", action="store_true", help="replace what is in the folder")
    text = "suspects to list; default: as many as seem to be wrong, at least 20"
    add_number(parser, "--most", int, text)
    text = "draw the first 100 of which a photo lies in this folder"
    parser.add_argument("--photos", type=Path, metavar="DIR", help=text)
    text = "of the store, that names photos; default: path, or the only one that can"
    parser.add_argument("--photo-column", metavar="COLUMN", help=text)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.experiments.doctor import doctor
    from kerasmlp.runs.run_folder import next_free

    output = args.output or next_free(Path("runs") / "doctor")
    names = ("most", "photos", "photo_column", "force")
    how = {name: getattr(args, name) for name in names} | {"progress": sys.stderr.isatty()}
    stores = args.store if len(args.store) > 1 else args.store[0]
    report = doctor(args.cross_validation, stores, output, **how)
    for label, told in report["labels"].items():
        _print(label, told)
    print(f"\n{output}: {', '.join(told['table'] for told in report['labels'].values())}")
    print_json(args, report["labels"] | {"output": str(output)})


def _print(label: str, told: dict) -> None:
    rows, wrong, without = (told[k] for k in ("rows", "wrong", "rows_without_answer"))
    left = f"; {without:,} without label, fold or answer left out" if without else ""
    model = "those of the deterministic model"
    if told["answers"] == "mc_mean":
        model = f"means of {told['num_samples']} passes"
    seeds = f"{told['seeds']} seed{'s' * (told['seeds'] > 1)}"
    print(f"{label}: {rows:,} labels{left}; answers are {model}, of {seeds}")
    if told["diverged"]:
        print(f"note: {len(told['diverged'])} runs diverged and have no answers")
    print(f"about {wrong:,} seem to be wrong ({wrong / rows:.1%}), hard ones among them")
    if wrong > _MANY * rows:
        print("note: so many say more of the model than of the labels: is it good enough to judge?")
    for own, other, number in told["pairs"][:10]:
        print(f"  {number:>6,} {own}, look like {other}")
    print(f"the {told['listed']:,} most suspicious are listed")
    if (photos := told.get("photos")) is not None:
        unread = f", {photos['unreadable']} cannot be read" if photos["unreadable"] else ""
        print(f"photos of {photos['found']:,} of them found, {photos['drawn']} drawn{unread}")
