"""Measures a run on a store, as it is and as the mean of its MC dropout samples.

Writes report.json, groups.csv and figures into a folder, and prints tables. With
--json the last line is one JSON object: the deterministic model, and the mean
under `mc_mean`. With --by COLUMN it also measures the rows with each value of a column,
with intervals and a test of the gap between the best and the worst.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from kerasmlp.commands.json_line import add_json_argument, print_json
from kerasmlp.commands.number_options import add_number
from kerasmlp.runs.run_folder import RunFolder

_SUMMARY = (
    "rmse", "mae", "r2", "mae_years", "accuracy", "exact_year_accuracy", "nll", "brier", "ece",
    "aurc", "aurc_random", "aurc_oracle",
    "interval_50_coverage", "interval_90_coverage", "interval_90_width", "interval_90_width_years",
    "set_90_coverage", "set_90_size",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of a training command")
    parser.add_argument("store", type=Path, help="embedding store with the label")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: evaluation-<store> in the run folder"
    )
    parser.add_argument("--force", action="store_true", help="replace the evaluation there")
    add_json_argument(parser)
    text = "stochastic passes; 0: the deterministic model only; default: %(default)s"
    add_number(parser, "--num-samples", int, text, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the samples; default: 0")
    parser.add_argument(
        "--ood", type=Path, metavar="STORE", help="embeddings that the model should be unsure about"
    )
    parser.add_argument(
        "--classes",
        metavar="C",
        help="age classes to measure in, where the model knows years (default: the run's)",
    )
    parser.add_argument(
        "--by",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns of the store to measure by as well, such as `race gender`: text, whole "
        "numbers or ages; race*gender combines two",
    )


def run(args: argparse.Namespace) -> None:
    from kerasmlp.evaluation.evaluate import evaluate
    from kerasmlp.runs.training_files import read_settings

    settings = {
        k: getattr(args, k) for k in ("num_samples", "seed", "ood", "classes", "by", "force")
    }
    report = evaluate(args.run, args.store, args.output, **settings, progress=sys.stderr.isatty())
    if args.num_samples and not report["num_samples"]:
        print("note: the model has no dropout, nothing to sample", file=sys.stderr)
    _, trained = read_settings(RunFolder(args.run))
    for head in trained.heads:
        part = report["heads"][head.name] if "heads" in report else report
        target = replace(head, classes=part["classes"]) if head.is_age else head
        _print_tables(part, target, head)
    print(f"\n{report['output']}")
    rest = {k: report[k] for k in ("mc_mean", "ood_auroc", "by", "gaps") if k in report}
    print_json(args, {**report["deterministic"], **rest, "output": report["output"]})


def _print_tables(report: dict, target, trained) -> None:
    """What was measured in the classes of a target, beside that of the training."""
    from kerasmlp.evaluation.by_text import by_table
    from kerasmlp.evaluation.measuring import groups_table, measures_table

    plain = [g for g in report["groups"] if g["model"] == "deterministic" and g["race"] == "all"]
    if report["rows_without_label"]:
        print(f"{report['rows_without_label']} rows without the label are left out")
    if known := report["rows_learned_from"]:
        print(f"note: the run has learned from {known} of these rows, which flatters it")
    if foreign := report.get("rows_in_no_group"):
        told = f"{foreign} rows are in no group, or of none that is known, with limits of its own"
        print(f"note: {told}: their intervals and sets are those of such rows, or of all")
    heading = f"measured in {target.measured_in}:"
    if target.measured_in != (own := trained.measured_in):
        print(f"note: the training was measured in {own}, which is not to be compared with this")
    print(f"the deterministic model by groups of people (the others are in groups.csv), {heading}")
    print(groups_table(plain))
    for column, groups in report.get("by", {}).items():
        print(f"\nthe same by {column}, with intervals of 95%:")
        print(by_table(column, groups, report["gaps"][column]))
    models = {k: report[k] for k in ("deterministic", "mc_mean") if k in report}
    print(f"\n{heading}\n{measures_table(models, _SUMMARY)}")
    print(f"\n{report['moved']['sentence']}")
    if sources := report.get("ood_auroc"):
        measures = list(dict.fromkeys(key for scores in sources.values() for key in scores))
        print(f"\nAUROC against\n{measures_table(sources, measures)}")
