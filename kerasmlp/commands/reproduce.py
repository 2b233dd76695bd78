"""The paper's experiment on two stores: pre-train, cross-validate all variants, compare, report.

With stores of IMDB-WIKI and Adience it is the paper; with any two stores it is
the same experiment on them. Ends with the paper's claims, one per line, and
one line of JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kerasmlp.commands.json_line import print_json
from kerasmlp.commands.training_options import add_run_arguments, open_run

_TASKS = ("gender", "age", "age-modified")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pretraining", type=Path, help="embedding store to pre-train on")
    parser.add_argument("store", type=Path, help="embedding store to cross-validate on")
    add_run_arguments(parser)
    parser.add_argument("--tasks", nargs="+", choices=_TASKS, default=list(_TASKS))
    parser.add_argument(
        "--age-preset", default="paper-age", metavar="NAME", help="default: %(default)s"
    )
    parser.add_argument(
        "--gender-preset", default="paper-gender", metavar="NAME", help="default: %(default)s"
    )
    parser.add_argument("--classes", metavar="C", help="age groups, as of train-age")
    for option, name, default, text in (
        ("--seeds", "num_seeds", 5, "repetitions of every cross-validation"),
        ("--pretraining-epochs", "pretraining_epochs", 5, "passes over the first store"),
    ):
        number = {"dest": name, "type": int, "default": default, "metavar": "N"}
        parser.add_argument(option, **number, help=f"{text}; default: %(default)s")
    parser.add_argument(
        "--search-epochs", type=int, metavar="N",
        help="first search the recipes on the first store (Hyperband, trials of at most N "
        "epochs; 10 in the paper); default: the presets as they are",
    )  # fmt: skip
    parser.add_argument(
        "--folds", dest="num_folds", type=int, metavar="N",
        help="default: those of the store's column, or 5",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes of one core each; default: all cores"
    )
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="draw its surest and least sure faces (Figure 5)"
    )
    parser.add_argument("--model-dir", type=Path, metavar="DIR", help="face models, for --photos")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run, and how long, from a short run"
    )


def run(args: argparse.Namespace) -> None:
    from kerasmlp.utils.checks import check_int, reject
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    if args.photos and not args.model_dir:
        reject("--model-dir", "must be given with --photos", None)
    if not args.dry_run:
        run_dir = open_run(args, "experiment")
    if args.search_epochs is not None:
        from kerasmlp.experiments.tuning.search_files import require_keras_tuner

        require_keras_tuner()
    from kerasmlp.data.stores.embedding_store import EmbeddingStore
    from kerasmlp.experiments.residual_mlp.checking import check, check_photos
    from kerasmlp.experiments.residual_mlp.design import Experiment, make_tasks

    if args.workers is not None:
        check_int("--workers", args.workers, minimum=1)
    tasks = make_tasks(
        args.tasks,
        EmbeddingStore.open(args.pretraining, verify=True),
        EmbeddingStore.open(args.store, verify=True),
        age_preset=args.age_preset,
        gender_preset=args.gender_preset,
        classes=args.classes,
    )
    experiment = Experiment(
        pretraining_path=args.pretraining,
        store_path=args.store,
        tasks=tasks,
        seed=args.seed,
        num_seeds=args.num_seeds,
        num_folds=args.num_folds,
        pretraining_epochs=args.pretraining_epochs,
        search_epochs=args.search_epochs,
    )
    if args.photos:
        check_photos(args.photos, args.model_dir, EmbeddingStore.open(args.store, verify=True))
    stores = check(experiment)
    import_tensorflow()
    if args.dry_run:
        _estimate(args, experiment, *stores)
        return
    from kerasmlp.experiments.residual_mlp.reproduce import reproduce
    from kerasmlp.experiments.residual_mlp.table import claims_markdown, lowest_validation_losses

    report = reproduce(
        experiment,
        run_dir,
        workers=args.workers,
        photos=args.photos,
        model_dir=args.model_dir,
        resume=args.resume,
        force=args.force,
        progress=True,
    )
    print(f"{run_dir / 'report.html'}: {report['seconds'] / 60:.1f} minutes\n")
    print(claims_markdown(report["claims"]))
    best = lowest_validation_losses(report["rows"]).items()
    print("lowest validation loss from pre-trained weights, by the paper the full network's:")
    print("".join(f"  {task}: {variant}\n" for task, variant in best))
    keys = ("claim", "task", "init", "nll_verdict", "accuracy_verdict")
    print_json(args, [{k: row[k] for k in keys} for row in report["claims"]])


def _estimate(args: argparse.Namespace, experiment, pretraining, store) -> None:
    from kerasmlp.experiments.residual_mlp.design import INITS, VARIANTS
    from kerasmlp.experiments.residual_mlp.estimate import estimate_seconds
    from kerasmlp.experiments.residual_mlp.search import search_plans

    seconds = estimate_seconds(experiment, pretraining, store, workers=args.workers)
    for name, plan in search_plans(experiment).items():
        print(f"a search for {name}: {plan.num_trials} trials, {plan.num_epochs} epochs")
    print(f"{len(experiment.pretrainings())} pre-trainings on {len(pretraining)} rows")
    print(f"{len(experiment.steps())} cross-validations on {len(store)} rows:")
    for task in experiment.tasks:
        values = seconds[task.name]
        print(
            f"  {task.name}: {len(VARIANTS)} variants × {len(INITS)} initialisations, "
            f"at most {task.recipe.epochs} epochs of {values['epoch']:.2f} s, "
            f"{values['compiling']:.0f} s to compile: at most "
            f"{_total(values) / 60:.1f} minutes"
        )
    total = sum(map(_total, seconds.values()))
    print(f"at most {total / 60:.1f} minutes in all, if no run stops early")
    print_json(args, {"seconds_at_most": total, "tasks": seconds})


def _total(seconds: dict[str, float]) -> float:
    return sum(seconds[name] for name in ("search", "pretraining", "cross_validations"))
