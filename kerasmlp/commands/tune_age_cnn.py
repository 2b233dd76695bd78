"""Searches learning rate and L2 factor of the UTKFace CNN with Keras Tuner, in two stages.

Both are drawn log-uniform: 50 trials in wide ranges, then 50 where the paper found
its best, each 5 epochs on 500 images. Ends with the best values as a preset,
RUN/best.json, that --preset of train-age-cnn accepts, and a picture of the trials.
"""

from __future__ import annotations

import argparse

from kerasmlp.commands.age_cnn_options import add_age_cnn_arguments, choose_age_cnn_recipe
from kerasmlp.commands.json_line import print_json
from kerasmlp.commands.training_options import open_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_age_cnn_arguments(parser)
    search = parser.add_argument_group("search")
    for flag, default, text in (
        ("--trials", 50, "of each stage"),
        ("--rows", 500, "images to train on"),
        ("--epochs", 5, "of a trial"),
    ):
        search.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{text}; default: {default}"
        )


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.stores.image_store import ImageStore
    from kerasmlp.experiments.tuning.search_files import require_keras_tuner
    from kerasmlp.training.precision import default_policy
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    require_keras_tuner()
    run_dir = open_run(args, "tune-age-cnn")
    store = ImageStore.open(args.store, verify=True)
    import_tensorflow()
    from kerasmlp.experiments.age_cnn.search import search_age_cnn

    report = search_age_cnn(
        store,
        choose_age_cnn_recipe(args),
        run_dir,
        trials=args.trials,
        rows=args.rows,
        epochs=args.epochs,
        precision=args.precision or default_policy(),
        seed=args.seed,
        resume=args.resume,
        force=args.force,
        progress=True,
    )
    best, trials = report["best"], report["trials"]
    print(f"{run_dir}: {trials['run']} trials, {report['seconds']['total']:.1f} s")
    if trials["diverged"]:
        print(f"{trials['diverged']} trials diverged")
    print(f"best validation MAE {best['val_mae_years']:.2f}: --preset {run_dir / 'best.json'}")
    print_json(args, best)
