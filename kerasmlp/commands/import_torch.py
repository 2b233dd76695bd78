"""Makes a run folder of a checkpoint of the original PyTorch code: same outputs to 1e-5.

CHECKPOINT is a state_dict of its ResMLP, alone or as its trainer saves it.
Only tensors and plain values are read, nothing in the file is executed. Skip
connections and dropout rate come from the arguments saved with it or from
--config; without them they are the paper's.
"""

import argparse
from pathlib import Path

from kerasmlp.commands.origin import add_origin_arguments, origin_of
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import read_json
from kerasmlp.utils.tensorflow_import import import_keras


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help=".pth or .pt file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RUN")
    parser.add_argument(
        "--config", type=Path, metavar="JSON", help="the original's, with arch and args"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="take RUN if it is finished")
    how.add_argument("--force", action="store_true", help="replace an existing RUN")
    origin = parser.add_argument_group("the embeddings that it was trained on")
    add_origin_arguments(origin)


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.stores.store_info import StoreInfo
    from kerasmlp.runs.torch_checkpoint import read_checkpoint

    info = StoreInfo(**origin_of(args))
    layers, arguments = read_checkpoint(args.checkpoint)
    if args.config:
        config = read_json(args.config)
        try:
            arguments = dict(config["arch"]["args"])
        except (TypeError, KeyError, ValueError):
            reject_file(args.config, 'must hold {"arch": {"args": {…}}}', "another structure")
    import_keras()
    from kerasmlp.runs.torch_import import import_torch

    how = {"info": info, "resume": args.resume, "force": args.force}
    report = import_torch(args.checkpoint, layers, arguments, args.output, **how)
    known = "" if arguments else " (assumed: the checkpoint does not say)"
    network, target = report["network"], report["predicts"]
    rows = {
        "predicts": f"{target.label}, {target.num_classes} classes",
        "network": f"{network['num_blocks']} blocks of {network['residuals_per_block']} "
        f"residual blocks, width {network['width']}",
        "parameters": f"{report['trainable_parameters']:,}",
        "IC layers": "yes" if network["use_ic"] else "no",
        "skips": ("yes" if network["use_residual"] else "no") + known,
        "dropout": f"{network['dropout_rate']}{known}",
        "embedder": info.embedder or "unknown: the model cannot check that embeddings are its own",
        "run": args.output,
    }
    for name, text in rows.items():
        print(f"{name:12} {text}")
