"""Measures a run on a store, as it is and as the mean of its MC dropout samples.

Writes report.json, groups.csv and figures into a folder, and prints tables. With
--json the last line is one JSON object: the deterministic model, and the mean
under `mc_mean`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kerasmlp.commands.json_line import add_json_argument, print_json

_SUMMARY = (
    "mae_years", "accuracy", "exact_year_accuracy", "nll", "brier", "ece",
    "aurc", "aurc_random", "aurc_oracle",
    "interval_50_coverage", "interval_90_coverage", "interval_90_width_years",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of a training command")
    parser.add_argument("store", type=Path, help="embedding store with the label")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: evaluation-<store> in the run folder"
    )
    parser.add_argument("--force", action="store_true", help="replace the evaluation there")
    add_json_argument(parser)
    parser.add_argument(
        "--num-samples",
        type=int,
        default=64,
        metavar="N",
        help="stochastic passes; 0: the deterministic model only; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples; default: 0")
    parser.add_argument(
        "--ood", type=Path, metavar="STORE", help="embeddings that the model should be unsure about"
    )
    parser.add_argument(
        "--classes",
        metavar="C",
        help="age classes to measure in, where the model knows years (default: the run's)",
    )


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.stores.embedding_store import EmbeddingStore
    from kerasmlp.runs.evaluation_folder import evaluation_folder
    from kerasmlp.runs.run_folder import RunFolder
    from kerasmlp.runs.training_files import require_training
    from kerasmlp.utils.checks import check_int, reject
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    check_int("--num-samples", args.num_samples, minimum=0)
    check_int("--seed", args.seed, minimum=0)
    if args.ood and not args.num_samples:
        reject("--ood", "must come with --num-samples above 0", str(args.ood))
    require_training(RunFolder(args.run))
    output = args.output or args.run / f"evaluation-{args.store.stem}"
    with evaluation_folder(output, force=args.force) as folder:
        store = EmbeddingStore.open(args.store, verify=True)
        others = {args.ood.stem: EmbeddingStore.open(args.ood, verify=True)} if args.ood else {}
        import_tensorflow()
        from kerasmlp.evaluation.measuring import fitting_classes, groups_table, measures_table
        from kerasmlp.evaluation.report import write_evaluation
        from kerasmlp.runs.mc_model import has_dropout
        from kerasmlp.runs.predictor import Predictor

        predictor = Predictor(args.run)
        predictor.check(args.store, store.width, store.info)
        for other in others.values():
            predictor.check(args.ood, other.width, other.info)
        target = predictor.target
        if args.classes is not None and not target.is_age:
            reject("--classes", f"must be left out for a model of {target.label}", args.classes)
        target = fitting_classes(target, store, args.classes)
        if target.is_age:
            print(f"measured in classes: {target.classes}")
        num_samples = args.num_samples
        if num_samples and not has_dropout(predictor.model):
            print("note: the model has no dropout, nothing to sample", file=sys.stderr)
            num_samples = 0
        report = write_evaluation(
            folder,
            predictor,
            target,
            store,
            num_samples=num_samples,
            seed=args.seed,
            others=others,
            progress=sys.stderr.isatty(),
        )
    plain = [g for g in report["groups"] if g["model"] == "deterministic" and g["race"] == "all"]
    if report["rows_without_label"]:
        print(f"{report['rows_without_label']} rows without the label are left out")
    if known := report["rows_learned_from"]:
        print(f"note: the run has learned from {known} of these rows, which flatters it")
    if "mc_mean" in report:
        print("the deterministic model, by groups of people (the others are in groups.csv):")
    print(groups_table(plain))
    models = {k: report[k] for k in ("deterministic", "mc_mean") if k in report}
    print(f"\n{measures_table(models, _SUMMARY)}")
    if sources := report.get("ood_auroc"):
        measures = list(dict.fromkeys(key for scores in sources.values() for key in scores))
        print(f"\nAUROC against\n{measures_table(sources, measures)}")
    print(f"\n{output}")
    rest = {k: report[k] for k in ("mc_mean", "ood_auroc") if k in report}
    print_json(args, {**report["deterministic"], **rest, "output": str(output)})
