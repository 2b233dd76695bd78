"""Trains one network to answer as a run of several does, and to answer as fast as one.

The run is asked at the rows of each step, mixed and with noise on top: no labels are needed,
and any store of its embeddings helps. The store that it has learned from is divided as it was
then.
"""

import argparse
from pathlib import Path

from kerasmlp.commands.json_line import add_json_argument, print_json
from kerasmlp.commands.number_options import add_hyperparameters, how_to_work
from kerasmlp.commands.resumed import resumed_settings
from kerasmlp.commands.training_options import HYPERPARAMETERS, open_run
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.tensorflow_import import import_tensorflow

_HYPERPARAMETERS = {k: v for k, v in HYPERPARAMETERS.items() if k != "members"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of a training on embeddings")
    parser.add_argument(
        "--store", type=Path, nargs="+", required=True, help="embeddings, with labels or without"
    )
    run = parser.add_argument_group("run")
    text = "default: a new one in runs/"
    run.add_argument("-o", "--run-dir", type=Path, metavar="RUN", help=text)
    run.add_argument("--seed", type=int, default=0, help="decides everything; default: 0")
    add_json_argument(run)
    how = run.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with a killed run")
    how.add_argument("--force", action="store_true", help="replace the run in the folder")
    recipe = parser.add_argument_group("recipe", "single values go on top of the preset")
    text = "a preset's name, or a JSON file of one; default: a member of the run"
    recipe.add_argument("--preset", metavar="NAME", help=text)
    add_hyperparameters(recipe, _HYPERPARAMETERS)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.stores.embedding_store import EmbeddingStore
    from kerasmlp.runs.training_files import read_settings

    _, target = read_settings(RunFolder(args.run))
    stores = [EmbeddingStore.open(path, verify=True) for path in args.store]
    run_dir = open_run(args, "distilled")
    import_tensorflow()
    from kerasmlp.training.distilling import distil

    recipe = _recipe(args, sum(map(len, stores)))
    report = distil(args.run, stores, run_dir, recipe=recipe, seed=args.seed, **how_to_work(args))
    _print_report(args, run_dir, target, report)


def _recipe(args: argparse.Namespace, rows: int):
    from kerasmlp.models.recipe_files import find_recipe
    from kerasmlp.training.student_recipe import student_recipe

    given = {k: getattr(args, k) for k in _HYPERPARAMETERS if getattr(args, k) is not None}
    if args.preset is not None:
        return find_recipe(args.preset).replace(members=1, refit=False, **given)
    if before := resumed_settings(args):
        return before["recipe"].replace(**given)
    return student_recipe(args.run, rows).replace(**given)


def _print_report(args: argparse.Namespace, run_dir: Path, target, report: dict) -> None:
    from kerasmlp.evaluation.agreement import AGREEMENT
    from kerasmlp.evaluation.measuring import MEASURES, measures_table

    rows = report["rows"]
    print(f"{run_dir}: {report['epochs']} epochs, {report['seconds']['total']:.1f} s")
    held_out = f", {rows['test']} held out as a test" if "test" in rows else ""
    print(f"{rows['training']} rows learned from, {rows['validation']} kept back{held_out}")
    for note in report["notes"]:
        print(f"\nnote: {note}")
    for head in target.heads:
        part = report["heads"][head.name] if "heads" in report else report
        print(f"\n{head.label}, agreement with {args.run} on the rows kept back:")
        print(measures_table({"distilled": part["agreement"]}, AGREEMENT))
        if part["validation"]:
            print(f"\nmeasured in {head.measured_in}:")
            both = {"the run": part["teacher"], "distilled": part["validation"]}
            both |= {"distilled, on the test": part["test"]} if "test" in part else {}
            print(measures_table(both, ("rows", *MEASURES)))
    names = ("agreement", "teacher", "validation", "test")
    print_json(args, {name: report[name] for name in names if name in report})
