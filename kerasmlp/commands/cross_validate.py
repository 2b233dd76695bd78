"""Cross-validates a recipe on an embedding store: seeds × folds, a run folder each.

Folds come from the store's column `fold`, or each seed draws them from whole
groups. Ends with the table of means and standard deviations.
"""

import argparse
import os

from kerasmlp.commands.json_line import print_json
from kerasmlp.commands.number_options import (
    add_engine,
    add_fold_options,
    add_number,
    add_side_by_side,
    how_to_work,
)
from kerasmlp.commands.task_options import add_task_arguments, choose_task
from kerasmlp.commands.training_options import (
    add_training_arguments,
    choose_validation_share,
    group_of,
    open_run,
    open_store,
    say_of_joined,
)
from kerasmlp.data.sample import SAMPLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser, several=True)
    add_task_arguments(parser)
    group = parser.add_argument_group("cross-validation")
    add_number(group, "--seeds", int, "default: %(default)s", default=5)
    add_number(group, "--seed-step", int, "from one to the next; default: number of members")
    add_fold_options(group)
    add_engine(group)
    add_side_by_side(group)
    text = "also write what each run answers for its test, for `doctor`: predictions.parquet"
    group.add_argument("--save-predictions", action="store_true", help=text)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.examples import count_labelled
    from kerasmlp.evaluation.predictions_file import require_pyarrow
    from kerasmlp.experiments.cross_validation.cross_validate import cross_validate
    from kerasmlp.experiments.cross_validation.fold_copies import said_of_copies
    from kerasmlp.experiments.cross_validation.out_of_fold import files_of
    from kerasmlp.experiments.cross_validation.plan import MAX_SEEDS, CrossValidationPlan, plan_runs
    from kerasmlp.utils.checks import check_int

    if args.save_predictions:
        require_pyarrow("--save-predictions")
    check_int("--seeds", args.seeds, minimum=1, maximum=MAX_SEEDS)
    check_int("--seed", args.seed, minimum=0)
    run_dir = open_run(args, "cross-validation")
    store = open_store(args)
    target, recipe = choose_task(args, store)
    say_of_joined(store, target)
    step = recipe.members if args.seed_step is None else args.seed_step
    check_int("--seed-step", step, minimum=1)
    plan = CrossValidationPlan(
        target=target,
        recipe=recipe,
        seeds=tuple(args.seed + step * k for k in range(args.seeds)),
        num_folds=args.num_folds,
        validation_share=choose_validation_share(args, count_labelled(store, target)),
        group=group_of(args),
        init=None if args.init is None else os.path.realpath(args.init),
    )
    runs = plan_runs(store, plan)
    used = len(runs[0].training) + len(runs[0].test)
    folds = len(runs) // len(plan.seeds)
    seeds = f"{len(plan.seeds)} seed{'s' * (len(plan.seeds) > 1)}"
    print(f"{seeds} × {folds} folds = {len(runs)} runs on {used} rows", end="")
    left = len(store) - used
    print(f"; {left} without label or fold left out" if left else "", flush=True)
    report = cross_validate(
        args.store or SAMPLE,
        plan,
        run_dir,
        workers=args.workers,
        engine=args.engine,
        side_by_side=args.side_by_side,
        save_predictions=args.save_predictions,
        **how_to_work(args),
    )
    means = (run_dir / "table.md").read_text(encoding="utf-8").split("\n\n| seed")[0]
    print(f"{run_dir}: {len(report['runs'])} runs, {report['seconds']['total']:.1f} s\n\n{means}")
    if args.save_predictions:
        print(f"\nanswers for the test folds: {', '.join(files_of(target).values())}")
    if note := said_of_copies(report.get("near_copies")):
        print(f"\nnote: {note}")
    print_json(args, report["summary"])
