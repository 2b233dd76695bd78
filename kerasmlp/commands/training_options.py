"""What `train-age` and `train-gender` share: their options, and from options to a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "fairface_sample.h5"

_HYPERPARAMETERS = {
    "num_blocks": int,
    "residuals_per_block": int,
    "dropout_rate": float,
    "batch_size": int,
    "epochs": int,
    "learning_rate": float,
    "weight_decay": float,
    "patience": int,
    "label_sigma_years": float,
    "mixup_alpha": float,
    "noise_std": float,
}


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--store", type=Path, help="embedding store (default: the shipped sample)")
    data.add_argument("--label", metavar="COLUMN", help="label column of the store")
    data.add_argument(
        "--validation-share", type=float, default=0.1, metavar="X", help="default: %(default)s"
    )
    data.add_argument(
        "--group",
        metavar="COLUMN",
        help="rows of one group are never split (default: group, if there)",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--run-dir", type=Path, metavar="DIR", help="default: a new one in runs/")
    run.add_argument("--seed", type=int, default=0, help="decides everything; default: 0")
    run.add_argument("--init", type=Path, metavar="RUN", help="begin with another run's weights")
    how = run.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with a killed run")
    how.add_argument("--force", action="store_true", help="replace the run in the folder")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--preset", metavar="NAME", help="a preset's name, or a JSON file of one")
    for name, kind in _HYPERPARAMETERS.items():
        flag = f"--{name.replace('_', '-')}"
        recipe.add_argument(flag, type=kind, metavar="N" if kind is int else "X")


def choose_recipe(args: argparse.Namespace, default: str):
    """The preset with the single hyperparameters that were given on top."""
    from kerasmlp.models.presets import find_recipe

    changes = {n: getattr(args, n) for n in _HYPERPARAMETERS if getattr(args, n) is not None}
    return find_recipe(args.preset or default).replace(**changes)


def open_store(args: argparse.Namespace):
    from kerasmlp.checks import reject
    from kerasmlp.stores.embedding_store import EmbeddingStore

    if args.store is None and not SAMPLE.is_file():
        reject("store", "must be given: the sample is part of the checkout", args.store)
    return EmbeddingStore.open(args.store or SAMPLE)


def run_training(args: argparse.Namespace, task: str, store, target, recipe) -> None:
    """Trains, and prints what came out."""
    from kerasmlp.checks import reject
    from kerasmlp.evaluation import groups_table
    from kerasmlp.runs import next_free
    from kerasmlp.training import train

    if args.resume and args.run_dir is None:
        reject("run-dir", "must be given to be resumed", None)
    run_dir = args.run_dir or next_free(Path("runs") / task)
    report = train(
        store,
        target,
        recipe,
        run_dir,
        seed=args.seed,
        validation_share=args.validation_share,
        group=args.group,
        init=args.init,
        resume=args.resume,
        force=args.force,
        progress=True,
    )
    rows = report["rows"]
    print(f"{run_dir}: {report['epochs']} epochs, {report['seconds']['total']:.1f} s")
    print(
        f"{rows['training']} rows trained on, {rows['validation']} kept back, "
        f"{rows['unlabelled']} without the label\n"
    )
    print("on the rows kept back:")
    print(groups_table(report["validation_groups"]))
    print(json.dumps(report["validation"]))
