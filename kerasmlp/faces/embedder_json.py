"""`embedder.json`, by which a folder says how its embedder is to be asked."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasmlp.faces.preprocessing import ALIGNMENTS, COLOURS, LAYOUTS, Preprocessing
from kerasmlp.utils.checks import is_number, is_whole, reject_file
from kerasmlp.utils.files import read_json
from kerasmlp.utils.schema import (
    check_object,
    flag,
    kind,
    list_of,
    number,
    one_of,
    optional,
    text,
)

NAME = "embedder.json"
SUFFIXES = (".onnx", ".keras")

_MOST_PIXELS = 4096
_SIZE = kind(
    f"[height, width], two whole numbers from 1 to {_MOST_PIXELS}",
    lambda v: isinstance(v, list) and len(v) == 2
    and all(is_whole(side) and 1 <= side <= _MOST_PIXELS for side in v),
)  # fmt: skip
_MEAN = kind(
    "0 or a number from 1 to 255, of pixels of 0 to 255",
    lambda v: is_number(v) and (v == 0 or 1 <= v <= 255),
)
_STD = kind(
    "a number from 1 to 255, of pixels of 0 to 255",
    lambda v: is_number(v) and 1 <= v <= 255,
)
_SAID = kind("a text of 1 to 1000 characters", lambda v: not text(1000)("", v) and v.strip() != "")
_SCHEMA = {
    "input_size": _SIZE,
    "layout": one_of(*LAYOUTS),
    "colour_order": one_of(*COLOURS),
    "mean": list_of(_MEAN, 3),
    "std": list_of(_STD, 3),
    "alignment": one_of(*ALIGNMENTS),
    "normalize": flag,
    "licence": _SAID,
    "source": _SAID,
    "margin": optional(number(0, 4)),
    "output": optional(text(1000)),
    "model": optional(text(255)),
}
_WHAT = "an embedder's description"


@dataclass(frozen=True)
class EmbedderFile:
    """An embedder of one's own: its file, and how it is to be asked.

    Attributes:
        path: Of the model.
        preprocessing: Of the pictures that it takes.
        normalize: Whether its answers are to be brought to norm 1.
        licence: Of its weights, in words.
        source: Where it came from.
    """

    path: Path
    preprocessing: Preprocessing
    normalize: bool
    licence: str
    source: str


def has_description(folder: str | os.PathLike) -> bool:
    return os.path.lexists(Path(folder) / NAME)


def read_embedder(folder: str | os.PathLike) -> EmbedderFile:
    """Reads a folder with `embedder.json` and the model that it describes.

    Raises:
        InputError: naming the file, if one is missing, damaged or contradicts itself.

    Example:

    >>> read_embedder("no/embedder")
    Traceback (most recent call last):
    ...
    kerasmlp.utils.checks.InputError: `no/embedder/embedder.json` must be a JSON file. \
Received: no such file or folder
    """
    folder = Path(folder).expanduser()
    path = folder / NAME
    said = check_object(path, read_json(path), _SCHEMA, _WHAT)
    if unknown := sorted(said.keys() - _SCHEMA.keys()):
        known = ", ".join(_SCHEMA)
        reject_file(path, f"must be {_WHAT} with no other names than {known}", f"{unknown[0]!r}")
    _check_sense(path, said)
    names = ("input_size", "layout", "colour_order", "mean", "std", "alignment")
    preprocessing = Preprocessing(
        **{k: tuple(said[k]) if isinstance(said[k], list) else said[k] for k in names},
        margin=said.get("margin"),
        output=said.get("output"),
    )
    others = {k: said[k] for k in ("normalize", "licence", "source")}
    return EmbedderFile(_model_in(folder, said.get("model")), preprocessing, **others)


def _check_sense(path: Path, said: dict[str, Any]) -> None:
    channels = 1 if said["colour_order"] == "gray" else 3
    for name in ("mean", "std"):
        if len(said[name]) != channels:
            requirement = f"must hold {channels} of `{name}` for the colours {said['colour_order']}"
            reject_file(path, requirement, f"{name}={said[name]}")
    alignment, (height, width) = said["alignment"], said["input_size"]
    if (alignment == "crop") != (said.get("margin") is not None):
        requirement = "must hold `margin` where `alignment` is 'crop', and only there"
        reject_file(path, requirement, f"alignment={alignment!r}, margin={said.get('margin')}")
    if alignment == "arcface" and (height != width or (height % 112 and height % 128)):
        requirement = "must hold a square `input_size` of 112 or 128, or a multiple, for 'arcface'"
        reject_file(path, requirement, f"input_size={said['input_size']}")


def _model_in(folder: Path, name: str | None) -> Path:
    """The model file that is named, or else the only one."""
    path = folder / NAME
    if name is None:
        found = sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES)
        if len(found) != 1:
            requirement = f"must name its `model` where not one {' or '.join(SUFFIXES)} is there"
            reject_file(path, requirement, ", ".join(found) or "none")
        name = found[0]
    model = folder / name
    if Path(name).name != name:
        reject_file(path, "must name a `model` in its own folder", repr(name))
    if model.is_dir() or model.suffix not in SUFFIXES:
        requirement = (
            f"must name a `model` that ends in {' or '.join(SUFFIXES)} (a SavedModel could run "
            "any operation: convert it with `python -m tf2onnx.convert --saved-model`)"
        )
        reject_file(path, requirement, repr(name))
    if not model.is_file():
        reject_file(path, "must name a `model` that is there", repr(name))
    return model
