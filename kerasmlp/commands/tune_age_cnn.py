"""Searches learning rate and L2 factor of the UTKFace CNN with Keras Tuner, in two stages.

Both are drawn log-uniform: 50 trials in wide ranges, then 50 where the paper found
its best, each 5 epochs on 500 images. Ends with the best values as a preset,
RUN/best.json, that --preset of train-age-cnn accepts, and a picture of the trials.
"""

import argparse

from kerasmlp.commands.age_cnn_options import add_age_cnn_arguments, age_cnn_work
from kerasmlp.commands.json_line import print_json
from kerasmlp.commands.number_options import add_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_age_cnn_arguments(parser)
    search = parser.add_argument_group("search")
    add_number(search, "--trials", int, "of each stage; default: 50", default=50)
    add_number(search, "--rows", int, "images to train on; default: 500", default=500)
    add_number(search, "--epochs", int, "of a trial; default: 5", default=5)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.experiments.tuning.search_files import require_keras_tuner

    require_keras_tuner()
    work = age_cnn_work(args, "tune-age-cnn")
    from kerasmlp.experiments.age_cnn.search import search_age_cnn

    report = search_age_cnn(**work, trials=args.trials, rows=args.rows, epochs=args.epochs)
    run_dir = work["run_dir"]
    best, trials = report["best"], report["trials"]
    print(f"{run_dir}: {trials['run']} trials, {report['seconds']['total']:.1f} s")
    if trials["diverged"]:
        print(f"{trials['diverged']} trials diverged")
    print(f"best validation MAE {best['val_mae_years']:.2f}: --preset {run_dir / 'best.json'}")
    print_json(args, best)
