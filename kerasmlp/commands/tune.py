"""Searches hyperparameters by Hyperband (Keras Tuner), with the validation NLL as objective.

Prints its plan and cost before it starts. Ends with the best values as a preset,
RUN/best.json, that --preset of every training command accepts, and a picture of
the trials. `--max-epochs`, `--budget-minutes` or both bound it.
"""

import argparse
import importlib

from kerasmlp.commands.json_line import print_json
from kerasmlp.commands.number_options import add_number, how_to_work
from kerasmlp.commands.task_options import AGE_LABELS, add_task_arguments, choose_task
from kerasmlp.commands.training_options import (
    add_data_arguments,
    add_run_arguments,
    choose_validation_share,
    group_of,
    open_run,
    open_store,
    say_of_joined,
)
from kerasmlp.data.sample import SAMPLE
from kerasmlp.utils.tensorflow_import import import_keras


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser, several=True)
    add_run_arguments(parser)
    add_task_arguments(parser)
    group = parser.add_argument_group("search")
    group.add_argument(
        "--space",
        default="narrow",
        metavar="NAME",
        help="narrow: around our defaults; paper: what the original searched (default: narrow)",
    )
    group.add_argument("--preset", metavar="NAME", help="of all that is not searched")
    text = "of the longest trials (default: 10, or what fits the budget)"
    add_number(group, "--max-epochs", int, text)
    add_number(group, "--factor", int, "one trial in N is taken on; default: 2", default=2)
    add_number(group, "--budget-minutes", float, "stop then, with the best so far")
    text = "do not look at the rows of this fold of the store's column `fold`"
    add_number(group, "--leave-out-fold", int, text, metavar="K")
    text = "run trials in N processes of one core each (default: in this one)"
    add_number(group, "--workers", int, text)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.examples import count_labelled
    from kerasmlp.experiments.tuning.plan import MAX_EPOCHS, TuningPlan
    from kerasmlp.experiments.tuning.search_files import require_keras_tuner
    from kerasmlp.experiments.tuning.space import SPACES
    from kerasmlp.experiments.tuning.spread import role, work
    from kerasmlp.experiments.tuning.tune import tune
    from kerasmlp.utils.checks import check_choice, check_optional_int, reject

    check_choice("--space", args.space, tuple(SPACES))
    require_keras_tuner()
    part = role()
    if part is not None and args.run_dir is None:
        reject("--run-dir", "must be given where several machines search", None)
    if part is None:
        check_optional_int("--workers", args.workers, minimum=1)
    store = open_store(args)
    if part == "worker":
        _import_keras()
        work(args.store or SAMPLE, args.run_dir)
        return
    run_dir = open_run(args, "tune")
    if args.preset is None and args.space == "paper":
        of_ages = set(args.label or ()) <= set(AGE_LABELS)
        args.preset = "paper-age" if of_ages else "paper-gender"
    target, base = choose_task(args, store)
    say_of_joined(store, target)
    plan = TuningPlan(
        target=target,
        base=base,
        max_epochs=MAX_EPOCHS if args.max_epochs is None else args.max_epochs,
        validation_share=choose_validation_share(args, count_labelled(store, target)),
        group=group_of(args),
        **{name: getattr(args, name) for name in ("space", "factor", "seed", "leave_out_fold")},
    )
    _import_keras()
    report = tune(
        args.store or SAMPLE,
        plan,
        run_dir,
        budget_minutes=args.budget_minutes,
        any_epochs=args.max_epochs is None,
        workers=0 if part == "chief" and args.workers is None else args.workers,
        **how_to_work(args),
        say=lambda text: print(text, flush=True),
    )
    trials, best = report["trials"], report["best"]
    print(f"{run_dir}: {trials['run']} trials, {report['seconds']['total']:.1f} s")
    if not report["complete"]:
        print(f"time was up after {trials['run']} of {trials['planned']} trials; --resume goes on")
    if trials["diverged"]:
        print(f"{trials['diverged']} trials diverged")
    kept = f"on {report['rows']['validation']} rows kept back"
    short = best["epochs"] < report["max_epochs"] and not report["complete"]
    so_far = f" after {best['epochs']} epochs of the schedule" if short else ""
    print(f"best validation NLL {best['val_loss']:.4f} {kept}{so_far}: ", end="")
    print(f"--preset {run_dir / 'best.json'}")
    print_json(args, best)


def _import_keras() -> None:
    """Keras, its TensorFlow set to trace many networks quickly."""
    import_keras()
    importlib.import_module("kerasmlp.experiments.tuning.trial").trace_faster()
