"""Which run's weights another one may begin with, and be tested after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.models.residual_mlp import head_layer
from kerasmlp.runs.model import load_model
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import count_seen, load_seen
from kerasmlp.runs.training_files import read_settings, require_training
from kerasmlp.utils.checks import reject, reject_file

if TYPE_CHECKING:  # a cross-validation leaves it to its workers
    import keras

_EMBEDDINGS = {  # by which those of a store are told from others
    "width": "of the store's width",
    "embedder_sha256": "of the store's embedder, with SHA-256",
    "embedder": "of the store's embedder,",
    "preprocessing": "made with",
    "normalized": "whose `normalized` is the store's (see `import-embeddings --normalize`):",
}


def check_init(init: RunFolder, config: dict) -> None:
    """Rejects a run whose weights another one cannot begin with.

    Args:
        init: To take weights from.
        config: Of the other run: its recipe, and the embeddings it learns from.

    Raises:
        InputError: if there is no such run, it saw other embeddings, or does not tell which.
    """
    require_training(init)
    if not (init / "model.keras").is_file():  # its weights diverged, and that was the result
        reject_file(init.path, "must hold a model", "a training without model.keras")
    other = init.config()
    known = {"recipe", "embedder_sha256", "normalized", "width"} <= other.keys()
    if not (known and isinstance(other["recipe"], dict) and "scale_inputs" in other["recipe"]):
        reject_file(init.path, "must be a training on embeddings", "another one")
    load_seen(init)
    both = other["embedder_sha256"] and config["embedder_sha256"]
    for key, what in _EMBEDDINGS.items():
        here, there = config.get(key), other.get(key)
        if None in (here, there) or here == there or (key == "embedder" and both):
            continue
        reject_file(init.path, f"must have learned from embeddings {what} {here}", f"{there}")
    if other["recipe"]["scale_inputs"] != config["recipe"]["scale_inputs"]:
        scaled = config["recipe"]["scale_inputs"]
        reject_file(init.path, f"must be a run with scale_inputs={scaled}", f"{not scaled}")
    members = [c["recipe"].get("members", 1) for c in (config, other)]
    if members[0] != members[1]:
        came = f"{members[1]}, from which a training with --members {members[1]} can begin"
        reject_file(init.path, f"must be a run with --members {members[0]}", came)
    if other.get("standardized") != config.get("standardized"):
        requirement = "must be a run whose model standardises its columns"
        reject_file(init.path, requirement, "one of an older version, which did not")


def copy_weights(init: RunFolder, model: keras.Model, config: dict, target: AnyTarget) -> dict:
    """Copies the weights of another run, layer by layer, where all shapes agree.

    The head of a label goes with the label where the two runs answer another number of them.

    The columns of embeddings that are not normalised stay standardised by the rows of the
    other run: its weights know them so.

    Args:
        init: The other run, on embeddings of the same kind.
        model: To receive the weights.
        config: Of the run that the model belongs to.
        target: What the model answers.

    Raises:
        InputError: as of `check_init`, or if no layer fits.
    """
    check_init(init, config)
    source = {layer.name: layer for layer in load_model(init.path).layers if layer.weights}
    source |= {here: source[there] for here, there in _same_heads(init, target).items()}
    copied, left = [], []
    for layer in model.layers:
        if not layer.weights:
            continue
        other = source.get(layer.name)
        shapes = [w.shape for w in layer.weights]
        if other is not None and [w.shape for w in other.weights] == shapes:
            layer.set_weights(other.get_weights())
            copied.append(layer.name)
        else:
            left.append(layer.name)
    if not any(model.get_layer(name).trainable_weights for name in copied):
        reject("init", "must be a run of the same network", str(init.path))
    return {"copied": copied, "new": left}


def _same_heads(init: RunFolder, target: AnyTarget) -> dict[str, str]:
    """Layers of the heads of classes that both have, by their names here, as they are named there.

    A head is named after its label only where it is one of several.
    """
    _, other = read_settings(init)

    def layers(of: AnyTarget) -> dict:
        several = len(of.heads) > 1
        heads = [head for head in of.heads if not head.is_number]
        names = [head_layer("logits", head.label if several else None) for head in heads]
        known = [(head.label, tuple(head.class_names)) for head in heads]
        return dict(zip(known, names, strict=True))

    here, there = layers(target), layers(other)
    return {here[head]: there[head] for head in here.keys() & there.keys()}


def same_head(init: RunFolder, target: AnyTarget) -> bool:
    """Whether a run answers with the same classes, so that the two can be measured alike."""
    _, other = read_settings(init)
    if other.is_age and target.is_age:
        return other.class_names == target.class_names
    return (other.label, other.network_head) == (target.label, target.network_head) and all(
        a.is_number or a.class_names == b.class_names
        for a, b in zip(other.heads, target.heads, strict=True)
    )


def check_untested(init: RunFolder, embeddings: np.ndarray) -> None:
    """Rejects a run that has learned from rows which are to test what it becomes.

    Args:
        init: To take weights from.
        embeddings: Of the test, or of all folds, `(rows, width)`.

    Raises:
        InputError: if there is such a row, in whatever store it came.
    """
    if known := count_seen(init, embeddings):
        requirement = "must have learned from other faces than those that test it"
        reject_file(init.path, requirement, f"a run that has seen {known} of their rows")
