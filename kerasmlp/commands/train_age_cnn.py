"""Trains the UTKFace CNN on grey face images: 1,431,905 parameters, MAE, Adam.

The weights of the best validation MAE are kept. The run folder holds report.json,
history.csv, model.keras (it takes pixels of 0 to 255), curves, histograms of the
ages, and the best and worst answers on the test images.

--overfit N instead learns N images by heart, to see that the network can.
"""

import argparse

from kerasmlp.commands.age_cnn_options import add_age_cnn_arguments, age_cnn_work
from kerasmlp.commands.json_line import print_json
from kerasmlp.commands.number_options import add_hyperparameters, add_number

_HYPERPARAMETERS = {  # name: kind, what it is
    "epochs": (int, "at most; default: 600"),
    "batch_size": (int, "rows per step; default: 32"),
    "learning_rate": (float, "of Adam; default: 0.0001"),
    "regularization": (float, "factor of the L2 penalty; default: 0.0001"),
    "patience": (int, "epochs without a better validation MAE until it stops; default: none"),
}
_OVERFIT = {"epochs": 15, "learning_rate": 1e-3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_age_cnn_arguments(parser)
    data = parser.add_argument_group("data")
    add_number(data, "--rows", int, "train on N images, drawn at random")
    text = "learn N images by heart: no validation, each epoch is 20 passes over them"
    add_number(data, "--overfit", int, text)
    recipe = parser.add_argument_group("recipe", "single values go on top of the preset")
    add_hyperparameters(recipe, _HYPERPARAMETERS)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.utils.checks import reject

    changes = {name: getattr(args, name) for name in _HYPERPARAMETERS}
    if args.overfit is not None:
        for name in ("rows", "batch_size", "regularization", "patience"):
            if getattr(args, name) is not None:
                flag = f"--{name.replace('_', '-')}"
                reject(flag, "must be left out with --overfit", getattr(args, name))
        changes |= {k: v for k, v in _OVERFIT.items() if changes[k] is None}
    work = age_cnn_work(args, "age-cnn", **changes)
    from kerasmlp.experiments.age_cnn.training import train_age_cnn

    report = train_age_cnn(**work, rows=args.rows, overfit=args.overfit)
    numbers = report["parameters"]
    print(
        f"{work['run_dir']}: {report['epochs']} epochs, {report['seconds']['total']:.1f} s; "
        f"{numbers['total']:,} parameters, {numbers['trainable']:,} trainable"
    )
    if args.overfit is not None:
        print(f"MAE on the {args.overfit} images learned by heart: {report['mae_years']:.4f} years")
        print_json(args, {"mae_years": report["mae_years"]})
        return
    median = report["median_baseline"]
    print(f"best validation MAE after epoch {report['best_epoch']}\n")
    always = f"always {median['age_years']:g}"
    print(f"{'MAE in years':>12} {'images':>8} {'model':>8} {always:>12}")
    for split, mae in report["mae_years"].items():
        rows, constant = report["rows"][split], median["mae_years"][split]
        print(f"{split:>12} {rows:>8} {mae:>8.2f} {constant:>12.2f}")
    measured = {"mae_years": report["mae_years"], "median_mae_years": median["mae_years"]}
    print_json(args, measured)
