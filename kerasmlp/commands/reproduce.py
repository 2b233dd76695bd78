"""The paper's experiment on two stores: pre-train, cross-validate all variants, compare, report.

With stores of IMDB-WIKI and Adience it is the paper; with any two stores it is
the same experiment on them. Ends with the paper's claims, one per line, and
one line of JSON.
"""

import argparse
from pathlib import Path

from kerasmlp.commands.json_line import print_json
from kerasmlp.commands.number_options import add_fold_options, add_number, how_to_work
from kerasmlp.commands.training_options import add_run_arguments, open_run

_TASKS = ("gender", "age", "age-modified")
_SETTINGS = ("seed", "num_seeds", "num_folds", "pretraining_epochs", "search_epochs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pretraining", type=Path, help="embedding store to pre-train on")
    parser.add_argument("store", type=Path, help="embedding store to cross-validate on")
    add_run_arguments(parser)
    parser.add_argument("--tasks", nargs="+", choices=_TASKS, default=list(_TASKS))
    for task in ("age", "gender"):
        preset = {"default": f"paper-{task}", "metavar": "NAME"}
        parser.add_argument(f"--{task}-preset", **preset, help="default: %(default)s")
    parser.add_argument("--classes", metavar="C", help="age groups, as of train-age")
    text = "repetitions of every cross-validation; default: %(default)s"
    add_number(parser, "--seeds", int, text, dest="num_seeds", default=5)
    text = "passes over the first store; default: %(default)s"
    add_number(parser, "--pretraining-epochs", int, text, default=5)
    text = (
        "first search the recipes on the first store (Hyperband, trials of at most N "
        "epochs; 10 in the paper); default: the presets as they are"
    )
    add_number(parser, "--search-epochs", int, text)
    add_fold_options(parser)
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="draw its surest and least sure faces (Figure 5)"
    )
    parser.add_argument("--model-dir", type=Path, metavar="DIR", help="face models, for --photos")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run, and how long, from a short run"
    )


def run(args: argparse.Namespace) -> None:
    from kerasmlp.utils.checks import check_optional_int, reject
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    if args.photos and not args.model_dir:
        reject("--model-dir", "must be given with --photos", None)
    if not args.dry_run:
        run_dir = open_run(args, "experiment")
    if args.search_epochs is not None:
        from kerasmlp.experiments.tuning.search_files import require_keras_tuner

        require_keras_tuner()
    from kerasmlp.data.stores.embedding_store import EmbeddingStore
    from kerasmlp.experiments.residual_mlp.design import Experiment, make_tasks
    from kerasmlp.experiments.residual_mlp.faces import check_photos

    check_optional_int("--workers", args.workers, minimum=1)
    stores = [EmbeddingStore.open(path, verify=True) for path in (args.pretraining, args.store)]
    how = {name: getattr(args, name) for name in ("age_preset", "gender_preset", "classes")}
    experiment = Experiment(
        pretraining_path=args.pretraining,
        store_path=args.store,
        tasks=make_tasks(args.tasks, *stores, **how),
        **{name: getattr(args, name) for name in _SETTINGS},
    )
    if args.photos:
        check_photos(args.photos, args.model_dir, stores[1])
    experiment.check()
    import_tensorflow()
    if args.dry_run:
        _estimate(args, experiment)
        return
    from kerasmlp.experiments.residual_mlp.reproduce import reproduce
    from kerasmlp.experiments.residual_mlp.table import claims_table, lowest_validation_losses
    from kerasmlp.experiments.summary import markdown_lines

    report = reproduce(
        experiment,
        run_dir,
        workers=args.workers,
        photos=args.photos,
        model_dir=args.model_dir,
        **how_to_work(args),
    )
    print(f"{run_dir / 'report.html'}: {report['seconds'] / 60:.1f} minutes\n")
    print("\n".join(markdown_lines(*claims_table(report["claims"]))) + "\n")
    best = lowest_validation_losses(report["rows"]).items()
    print("lowest validation loss from pre-trained weights, by the paper the full network's:")
    print("".join(f"  {task}: {variant}\n" for task, variant in best))
    keys = ("claim", "task", "init", "nll_verdict", "accuracy_verdict")
    print_json(args, [{k: row[k] for k in keys} for row in report["claims"]])


def _estimate(args: argparse.Namespace, experiment) -> None:
    from kerasmlp.experiments.residual_mlp.design import INITS, VARIANTS
    from kerasmlp.experiments.residual_mlp.estimate import estimate_seconds

    seconds = estimate_seconds(experiment, workers=args.workers)
    for name, plan in experiment.searches().items():
        print(f"a search for {name}: {plan.num_trials} trials, {plan.num_epochs} epochs")
    rows = len(experiment.pretraining_store)
    print(f"{len(experiment.pretrainings())} pre-trainings on {rows} rows")
    print(f"{len(experiment.steps())} cross-validations on {len(experiment.store)} rows:")
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
