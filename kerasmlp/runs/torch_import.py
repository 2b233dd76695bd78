"""From a checkpoint of the original PyTorch code to a run folder."""

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.data.targets import Target, age_target
from kerasmlp.layers.downsample_block import DownsampleBlock
from kerasmlp.layers.ic_layer import ICLayer
from kerasmlp.layers.residual_block import ResidualBlock
from kerasmlp.models.presets import PRESETS
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.runs.environment import environment
from kerasmlp.runs.model import save_model
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.torch_checkpoint import NORM, TorchLayer, described
from kerasmlp.runs.training_files import KIND
from kerasmlp.utils.checks import check_bool, check_rate, reject_file
from kerasmlp.utils.files import sha256_file

# The original's number of classes tells its task; it codes 0 male and 1 female, as we do.
_TARGETS = {
    2: Target("gender", ("male", "female")),
    8: age_target("age_years", "adience", by_years=False),
    101: age_target("age_years", "years", by_years=True),
}
_SAID_BY_TENSORS = {
    "num_residuals_per_block": "residuals_per_block",
    "num_blocks": "num_blocks",
    "num_classes": "num_classes",
    "num_initial_features": "width",
}


def import_torch(
    path: str | os.PathLike,
    layers: list[TorchLayer],
    arguments: Mapping[str, Any],
    run_dir: str | os.PathLike,
    *,
    info: StoreInfo,
    **how: bool,
) -> dict:
    """Writes a finished run with the weights of a residual MLP of the original.

    Its code and the paper's section 3.2 differ from ours in one thing: there a
    first stage without residual blocks begins with an IC layer, ours then has
    `use_input_ic`. The skip connections and the dropout rate are not in the
    layers: they come from `arguments`, else they are the paper's.

    Args:
        path: The checkpoint, for errors and its hash.
        layers: As of `read_checkpoint`.
        arguments: Of the original's `ResMLP`; all but `add_residual` and
            `dropout` must agree with the layers.
        run_dir: Folder to write.
        info: Of the embeddings that it was trained on.
        how: `resume` and `force` of `RunFolder.working`.

    Returns:
        The report, as in `report.json`.

    Raises:
        InputError: if the layers are not those of a residual MLP, naming the
            first that does not fit.
    """
    network = _checked_network(path, layers, arguments)
    target = _TARGETS.get(network["num_classes"])
    if target is None:
        classes = "2 classes (gender), 8 (Adience's age groups) or 101 (years)"
        reject_file(path, f"must have {classes}", f"{network['num_classes']}")
    model = ResidualMLP(**network, dtype="float32")
    _copy(path, layers, model)
    report = {
        "checkpoint": os.path.basename(path),
        "arguments_known": bool(arguments),
        "temperature": 1.0,
        "trainable_parameters": sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        **environment(),
    }
    run = RunFolder(run_dir)
    with run.working(_settings(network, target, info, sha256_file(path)), **how):
        if run.done:
            report = run.report()
        else:
            save_model(run, model)
            run.finish(report)
    return report | {"network": network, "predicts": target}


def _settings(network: dict, target: Target, info: StoreInfo, checkpoint_sha256: str) -> dict:
    """As those of a training."""
    recipe = PRESETS["paper-age" if target.is_age else "paper-gender"]
    names = recipe.to_config().keys() & network.keys()
    return {
        "kind": KIND,
        "target": target.to_config(),
        "recipe": recipe.replace(**{k: network[k] for k in names}).to_config(),
        "network": network,
        "width": network["width"],
        "data_digest": None,
        **info.of_embedder(),
        "checkpoint_sha256": checkpoint_sha256,
    }


def _checked_network(
    path: str | os.PathLike, layers: list[TorchLayer], arguments: Mapping[str, Any]
) -> dict:
    """As `infer_network`, with what the arguments alone can say."""
    network = infer_network(path, layers)
    for theirs, ours in _SAID_BY_TENSORS.items():
        if theirs == "num_residuals_per_block" and not network["num_blocks"]:
            continue
        if arguments.get(theirs, network[ours]) != network[ours]:
            came = f"{theirs}={arguments[theirs]!r} in its arguments"
            reject_file(path, f"must have arguments that say {theirs}={network[ours]}", came)
    rate = arguments.get("dropout", PRESETS["paper-age"].dropout_rate)
    network["dropout_rate"] = check_rate("dropout", rate)
    network["use_residual"] = check_bool("add_residual", arguments.get("add_residual", True))
    return network


def infer_network(path: str | os.PathLike, layers: list[TorchLayer]) -> dict:
    """The arguments of `ResidualMLP` that the shapes of the layers say.

    Raises:
        InputError: if they are not of such a network, naming the first that
            does not fit.
    """
    linears = [layer for layer in layers if layer.is_linear]
    if not linears or not layers[-1].is_linear:
        reject_file(path, "must end in a Linear layer", f"{layers[-1].name!r}")
    *body, head = linears
    width = stage = linears[0].tensors["weight"].shape[1]
    squares, squares_of_stages = 0, []
    for layer in body:
        num_outputs, num_inputs = layer.tensors["weight"].shape
        if num_inputs != stage or num_outputs not in (stage, stage // 2):
            expected = f"must hold a Linear from {stage} to {stage} or {stage // 2}"
            reject_file(path, f"{expected} as {layer.name!r}", f"{layer}")
        squares += num_outputs == stage
        if num_outputs != stage:
            squares_of_stages.append(squares)
            squares, stage = 0, num_outputs
    if squares or len(set(squares_of_stages)) > 1 or any(n % 2 for n in squares_of_stages):
        came = ", ".join(map(str, [*squares_of_stages, *([squares] if squares else [])]))
        requirement = "must hold the same even number of square Linear layers before each halving"
        reject_file(path, requirement, came)
    if head.tensors["weight"].shape[1] != stage:
        reject_file(path, f"must end in a Linear from {stage}", f"{head.name!r}, {head}")
    return {
        "num_classes": len(head.tensors["bias"]),
        "width": width,
        "num_blocks": len(squares_of_stages),
        "residuals_per_block": squares_of_stages[0] // 2 if squares_of_stages else 0,
        "use_ic": len(layers) > len(linears),
        "use_input_ic": not layers[0].is_linear,
        "use_output_ic": len(layers) > 1 and not layers[-2].is_linear,
    }


def _copy(path: str | os.PathLike, layers: list[TorchLayer], model: keras.Model) -> None:
    ours = _layers_in_order(model)
    for i in range(max(len(ours), len(layers))):
        weights = ours[i].weights if i < len(ours) else None
        expected = described(tuple(weights[0].shape)) if weights else "nothing more"
        came = f"{layers[i]} {layers[i].name!r}" if i < len(layers) else "the end"
        if not came.startswith(f"{expected} "):
            reject_file(path, f"must hold {expected} as layer {i + 1}", came)
        tensors = layers[i].tensors
        if layers[i].is_linear:
            ours[i].set_weights([tensors["weight"].T, tensors["bias"]])
        else:
            ours[i].set_weights([tensors[name] for name in NORM])


def _layers_in_order(model: keras.Model) -> list[keras.layers.Layer]:
    """The dense and batch-norm layers of a residual MLP, as data passes them."""
    ordered = []
    for layer in model.layers:
        if isinstance(layer, ResidualBlock):
            parts = [layer.ic_0, layer.dense_0, layer.ic_1, layer.dense_1]
        elif isinstance(layer, DownsampleBlock):
            parts = [layer.ic, layer.dense]
        else:
            parts = [layer] if layer.weights else []
        ordered += [p.norm if isinstance(p, ICLayer) else p for p in parts if p is not None]
    return ordered
