"""What `train-age-cnn` and `tune-age-cnn` share: options, and what follows from them."""

import argparse
from pathlib import Path
from typing import Any

from kerasmlp.commands.number_options import how_to_work
from kerasmlp.commands.training_options import add_precision_argument, add_run_arguments, open_run


def add_age_cnn_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, metavar="STORE", help="of build-images --gray")
    add_precision_argument(add_run_arguments(parser))
    parser.add_argument(
        "--preset", type=Path, metavar="FILE",
        help="JSON of network and hyperparameters (default: the paper's)",
    )  # fmt: skip


def age_cnn_work(args: argparse.Namespace, name: str, **changes: Any) -> dict[str, Any]:
    """What a training and a search both take, and TensorFlow in this process.

    Args:
        args: With the options above.
        name: Of the folder in `runs/` if none is given.
        changes: Of the preset, where they are not None.
    """
    from kerasmlp.data.stores.image_store import ImageStore
    from kerasmlp.training.precision import default_policy
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    run_dir, store = open_run(args, name), ImageStore.open(args.store, verify=True)
    import_tensorflow()
    from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe

    recipe = AgeCNNRecipe() if args.preset is None else AgeCNNRecipe.from_file(args.preset)
    return {
        "store": store,
        "recipe": recipe.replace(**{k: v for k, v in changes.items() if v is not None}),
        "run_dir": run_dir,
        "precision": args.precision or default_policy(),
        "seed": args.seed,
        **how_to_work(args),
    }
