"""What `train-age` and `train-gender` share: their options, and from options to a run."""

import argparse
import sys
from pathlib import Path

from kerasmlp.commands.json_line import add_json_argument, print_json
from kerasmlp.commands.number_options import add_hyperparameters, add_number, how_to_work
from kerasmlp.commands.resumed import resumed_settings
from kerasmlp.data.sample import SAMPLE
from kerasmlp.runs.run_folder import RunFolder, next_free
from kerasmlp.utils.checks import reject
from kerasmlp.utils.tensorflow_import import import_keras

_FEW_ROWS = 1000
HYPERPARAMETERS = {  # name: kind, what it is
    "epochs": (int, "passes over the data, at most"),
    "batch_size": (int, "rows per step"),
    "min_steps": (int, "of an epoch: fewer rows are gone through again"),
    "learning_rate": (float, "of AdamW, at the start"),
    "weight_decay": (float, "of AdamW"),
    "patience": (int, "epochs without a better validation loss until it stops"),
    "num_blocks": (int, "stages of the network, each halves the width"),
    "hidden_width": (
        int,
        "of the first stage; default: that of the rows, of a table 64 or more",
    ),
    "residuals_per_block": (int, "residual blocks in each stage"),
    "dropout_rate": (float, "of all IC layers"),
    "members": (int, "networks that learn apart and answer as one"),
    "mixup_alpha": (float, "of mixup, 0 turns it off"),
    "noise_std": (float, "largest standard deviation of noise on embeddings"),
}


def add_training_arguments(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    add_data_arguments(parser, several=several)
    run = add_run_arguments(parser)
    run.add_argument("--init", type=Path, metavar="RUN", help="begin with another run's weights")
    recipe = parser.add_argument_group("recipe", "single values go on top of the preset")
    recipe.add_argument("--preset", metavar="NAME", help="a preset's name, or a JSON file of one")
    add_hyperparameters(recipe, HYPERPARAMETERS)
    text = "once more from all rows, when those kept back have measured; numbers do by default"
    add_conformal_argument(recipe, "default: of ages predicted")
    recipe.add_argument("--refit", action=argparse.BooleanOptionalAction, help=text)


def add_conformal_argument(group: argparse._ActionsContainer, default: str) -> None:
    group.add_argument(
        "--conformal-by",
        nargs="*",
        metavar="COLUMN",
        help="intervals and sets that keep their promise in each group of these columns, which "
        "must be known when the model answers; predicted: in each class that it predicts; none: "
        f"in all rows together; {default}",
    )


def add_data_arguments(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Those of the store; `several` labels may be given where a command learns them at once."""
    data = parser.add_argument_group("data")
    text = "embedding store, or several, learned from at once (default: the shipped sample)"
    data.add_argument("--store", type=Path, nargs="+", metavar="STORE", help=text)
    text = "label column of the store" + ", or several, a head for each" * several
    number = {"nargs": "+"} if several else {}
    data.add_argument("--label", metavar="COLUMN", help=text, **number)
    text = "default: 0.1, with --init 0.2 of fewer than 1,000 rows with the label"
    add_number(data, "--validation-share", float, text)
    data.add_argument(
        "--group",
        metavar="COLUMN",
        help="rows of one group are never split (default: group, if there)",
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    run = parser.add_argument_group("run")
    run.add_argument("--run-dir", type=Path, metavar="DIR", help="default: a new one in runs/")
    run.add_argument("--seed", type=int, default=0, help="decides everything; default: 0")
    add_json_argument(run)
    how = run.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with a killed run")
    how.add_argument("--force", action="store_true", help="replace the run in the folder")
    return run


def open_run(args: argparse.Namespace, name: str) -> Path:
    """The run folder that the options say, or a new one in `runs/`."""
    if args.resume and args.run_dir is None:
        reject("--run-dir", "must be given to be resumed", None)
    if args.run_dir is None:
        args.run_dir = next_free(Path("runs") / name)
    if args.resume and not args.run_dir.exists():
        print(f"note: nothing to resume in {args.run_dir}, beginning", file=sys.stderr)
    return args.run_dir


def add_precision_argument(group: argparse._ArgumentGroup) -> None:
    from kerasmlp.training.precision import PRECISIONS

    group.add_argument(
        "--precision",
        choices=list(PRECISIONS),
        help="default: mixed_float16 on a GPU, else float32 "
        "(mixed_bfloat16 is faster on CPUs that multiply bfloat16 matrices)",
    )


def add_test_argument(parser: argparse.ArgumentParser) -> None:
    text = "hold out a share of the rows, which the finished model is measured on once"
    add_number(parser, "--test-share", float, text)


def choose_validation_share(args: argparse.Namespace, rows: int) -> float:
    """Of few rows with the label, more are kept back to begin with other weights.

    When to stop hangs on them.
    """
    from kerasmlp.data.examples import VALIDATION_SHARE

    if args.validation_share is not None:
        return args.validation_share
    if before := resumed_settings(args):
        return before["validation_share"]
    few = getattr(args, "init", None) is not None and rows < _FEW_ROWS
    return 2 * VALIDATION_SHARE if few else VALIDATION_SHARE


def open_store(args: argparse.Namespace):
    """The store, or several joined to one, and what is to be said of that."""
    from kerasmlp.data.joining import open_stores

    store = open_stores(args.store or SAMPLE, group=group_of(args))
    if joined := store.info.joined:
        print(", ".join(f"{s['file']}: {s['rows']:,} rows" for s in joined["stores"]), flush=True)
        if same := joined["same_rows"]:
            print(f"note: {same:,} rows are in two stores: they stay on one side of each split")
        for label, why in joined["left_out"].items():
            print(f"note: {label} is left out: {why}", flush=True)
    return store


def group_of(args: argparse.Namespace) -> str | None:
    """The column of groups that was asked for, or that of the run that is resumed."""
    return resumed_settings(args).get("group") if args.group is None else args.group


def say_of_joined(store, target) -> list[str]:
    """Prints what the files of a joined store know of the labels; returns what is doubtful."""
    from kerasmlp.data.joined_labels import doubts_of_joined, known_in_files

    doubts = doubts_of_joined(store, target.heads)
    for line in (*known_in_files(store, target.heads), *(f"note: {doubt}" for doubt in doubts)):
        print(line, flush=True)
    return doubts


def run_training(args: argparse.Namespace, task: str, store, target, recipe) -> None:
    """Trains, and prints what came out."""
    from kerasmlp.data.examples import count_labelled
    from kerasmlp.runs.training_files import require_training

    run_dir = open_run(args, task)
    if args.init is not None:
        require_training(RunFolder(args.init))
    before, said = resumed_settings(args), say_of_joined(store, target)
    rows = count_labelled(store, target)
    import_keras()
    from kerasmlp.training.embeddings import train

    report = train(
        store,
        target,
        recipe,
        run_dir,
        seed=args.seed,
        validation_share=choose_validation_share(args, rows),
        group=group_of(args),
        init=args.init,
        test_share=before.get("test_share") if args.test_share is None else args.test_share,
        **how_to_work(args),
    )
    report["notes"] = [note for note in report.get("notes", ()) if note not in said]
    _print_report(args, run_dir, target, recipe, report)


def _said_of_columns(columns: dict) -> str:
    number, constant, first = (columns[k] for k in ("standardized", "constant", "hidden_width"))
    said = f"{number} columns that are not normalised: each standardised by the rows trained on"
    said += f", {constant} without effect, as they never vary" if constant else ""
    return said + (f"; first stage {first} wide (--hidden-width)" if first != number else "")


def _print_report(args: argparse.Namespace, run_dir: Path, target, recipe, report: dict) -> None:
    from kerasmlp.evaluation.measuring import MEASURES, groups_table, measures_table

    rows = report["rows"]
    print(f"{run_dir}: {report['epochs']} epochs, {report['seconds']['total']:.1f} s")
    if args.init is not None:
        stop = f"stops after {recipe.patience} epochs without a better loss on the rows kept back"
        stop = stop if recipe.patience else "trains to the end"
        print(f"from {args.init}: learning rate {recipe.learning_rate:g}, {stop}")
    held_out = f", {rows['test']} held out as a test" if "test" in rows else ""
    print(
        f"{rows['training']} rows trained on, {rows['validation']} kept back{held_out}, "
        f"{rows['unlabelled']} without the label\n"
    )
    if again := report.get("refit"):
        print(
            f"trained once more on all {again['rows']}, {again['epochs']} epochs: that network "
            "answers, the one before was measured\n"
        )
    if (views := rows.get("views", 0)) > rows["training"]:
        print(f"{views} views of the rows trained on: one of each, drawn, in every epoch\n")
    if columns := report.get("columns"):
        print(f"{_said_of_columns(columns)}\n")
    for note in report["notes"]:
        print(f"note: {note}\n")
    for head in target.heads:
        part = report["heads"][head.name] if "heads" in report else report
        print(f"on the rows kept back, measured in {head.measured_in}:")
        print(groups_table(part["validation_groups"]))
        grouped = sum(group["rows"] for group in part["validation_groups"])
        if 0 < grouped < part["validation"]["rows"]:
            print(f"(of {grouped} rows; the others lack what they would be grouped by)")
        before = report.get("before_training") if part is report else None
        results = {"before": before, "after": part["validation"]} if before else {}
        results = results or {"kept back": part["validation"]}
        results |= part.get("validation_by_store", {})
        if "test" in part:
            results["test"] = part["test"]
            by_store = part.get("test_by_store", {})
            results |= {f"test, {file}": measured for file, measured in by_store.items()}
        print(f"\n{measures_table(results, MEASURES)}" + "\n" * (part is not report))
    if before and before["rows_learned_from"]:
        print(
            f"note: {args.init} has learned from {before['rows_learned_from']} of the rows kept "
            "back, which flatters `before`, and whatever is measured and fitted on them"
        )
    test = {"test": report["test"]} if "test" in report else {}
    print_json(args, report["validation"] | test)
