"""Trains the UTKFace CNN on grey face images: 1,431,905 parameters, MAE, Adam.

The weights of the best validation MAE are kept. The run folder holds report.json,
history.csv, model.keras (it takes pixels of 0 to 255), curves, histograms of the
ages, and the best and worst answers on the test images.

--overfit N instead learns N images by heart, to see that the network can.
"""

from __future__ import annotations

import argparse

from kerasmlp.commands.age_cnn_options import add_age_cnn_arguments, choose_age_cnn_recipe
from kerasmlp.commands.json_line import print_json
from kerasmlp.commands.training_options import open_run

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
    data.add_argument("--rows", type=int, metavar="N", help="train on N images, drawn at random")
    data.add_argument(
        "--overfit",
        type=int,
        metavar="N",
        help="learn N images by heart: no validation, each epoch is 20 passes over them",
    )
    recipe = parser.add_argument_group("recipe", "single values go on top of the preset")
    for name, (kind, text) in _HYPERPARAMETERS.items():
        flag = f"--{name.replace('_', '-')}"
        recipe.add_argument(flag, type=kind, metavar="N" if kind is int else "X", help=text)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.stores.image_store import ImageStore
    from kerasmlp.training.precision import default_policy
    from kerasmlp.utils.checks import reject
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    changes = {name: getattr(args, name) for name in _HYPERPARAMETERS}
    if args.overfit is not None:
        for name in ("rows", "batch_size", "regularization", "patience"):
            if getattr(args, name) is not None:
                flag = f"--{name.replace('_', '-')}"
                reject(flag, "must be left out with --overfit", getattr(args, name))
        changes |= {k: v for k, v in _OVERFIT.items() if changes[k] is None}
    run_dir = open_run(args, "age-cnn")
    store = ImageStore.open(args.store, verify=True)
    import_tensorflow()
    from kerasmlp.experiments.age_cnn.training import overfit_age_cnn, train_age_cnn

    recipe = choose_age_cnn_recipe(args, **changes)
    options = {
        "precision": args.precision or default_policy(),
        "seed": args.seed,
        "resume": args.resume,
        "force": args.force,
        "progress": True,
    }
    if args.overfit is None:
        report = train_age_cnn(store, recipe, run_dir, rows=args.rows, **options)
    else:
        report = overfit_age_cnn(store, recipe, run_dir, count=args.overfit, **options)
    numbers = report["parameters"]
    print(
        f"{run_dir}: {report['epochs']} epochs, {report['seconds']['total']:.1f} s; "
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
