"""Fits what comes after the weights of a run anew, on labelled rows of where it is to answer.

Temperature, intervals, sets, the limits of groups and the thresholds to abstain then hold for
rows like these; nothing is trained. Rows that the run has learned from are left out. Where the
store knows age groups and the run years, the intervals in years promise nothing any more.
"""

import argparse
from pathlib import Path

from kerasmlp.commands.json_line import add_json_argument, print_json
from kerasmlp.commands.training_options import add_conformal_argument
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.tensorflow_import import import_keras


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of a training on embeddings")
    parser.add_argument("store", type=Path, help="embedding store with the label")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NEW_RUN")
    parser.add_argument("--force", action="store_true", help="replace the run in NEW_RUN")
    parser.add_argument(
        "--batch-norm",
        action="store_true",
        help="take the moving statistics of batch norm from these rows before, without labels: "
        "from those that have none, if there are 200",
    )
    add_conformal_argument(parser, "default: as the run was trained")
    parser.add_argument("--seed", type=int, default=0, help="decides everything; default: 0")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.stores.embedding_store import EmbeddingStore
    from kerasmlp.runs.training_files import read_settings

    read_settings(RunFolder(args.run))
    store = EmbeddingStore.open(args.store, verify=True)
    import_keras()
    from kerasmlp.training.recalibrating import recalibrate

    names = ("batch_norm", "conformal_by", "seed", "force")
    how = {name: getattr(args, name) for name in names}
    report = recalibrate(args.run, store, args.output, **how)
    _print_report(args, report)


def _print_report(args: argparse.Namespace, report: dict) -> None:
    from kerasmlp.evaluation.measuring import MEASURES, measures_table
    from kerasmlp.runs.training_files import read_settings

    print(f"{args.output}: {report['rows']['validation']} rows, {report['seconds']['total']:.1f} s")
    for note in report["notes"]:
        print(f"note: {note}")
    _, target = read_settings(RunFolder(args.output))
    for head in target.heads:
        part = report["heads"][head.name] if "heads" in report else report
        if "before" in part:
            print(f"\non these rows, which it is fitted to, measured in {head.measured_in}:")
            both = {"before": part["before"], "after": part["validation"]}
            print(measures_table(both, ("rows", *MEASURES)))
    print_json(args, {name: report[name] for name in ("before", "validation")})
