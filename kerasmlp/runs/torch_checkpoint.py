"""Reads the tensors of a PyTorch checkpoint, and of all else in it only plain values."""

import os
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasmlp.utils.checks import reject, reject_file
from kerasmlp.utils.files import what_is

NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class TorchLayer:
    """A `Linear` or a `BatchNorm1d` under its name in the checkpoint.

    Attributes:
        name: Such as `blocks.0.linear1`.
        tensors: By their names there, float32.
    """

    name: str
    tensors: dict[str, np.ndarray]

    @property
    def is_linear(self) -> bool:
        return self.tensors["weight"].ndim == 2

    def __str__(self) -> str:
        return described(self.tensors["weight"].shape[::-1])


def described(shape: tuple[int, ...]) -> str:
    """A layer by the shape of its weight, inputs first."""
    return f"{'Linear' if len(shape) == 2 else 'BatchNorm1d'}{shape}".replace(",)", ")")


def read_checkpoint(path: str | os.PathLike) -> tuple[list[TorchLayer], dict]:
    """Reads a `state_dict`, alone or under that key in what a trainer saved.

    Nothing in the file is executed: classes that it names are replaced by an
    empty one. Needs torch.

    Args:
        path: What `torch.save` wrote.

    Returns:
        The layers in the order in which their module made them, and the
        arguments of the network, `config["arch"]["args"]`, where the trainer
        saved them, else `{}`.

    Raises:
        InputError: if torch is missing, or the file holds other layers than
            `Linear` and `BatchNorm1d`.
    """
    if not os.path.isfile(path):
        reject_file(path, "must be a PyTorch checkpoint", what_is(path))
    loaded = _load(path)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        came = "an empty dict" if isinstance(state, Mapping) else f"{type(loaded).__name__}"
        came = "a pickled module" if isinstance(loaded, _Inert) else came
        reject_file(path, "must hold a state_dict", came)
    modules: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in state.items():
        name, _, part = str(key).rpartition(".")
        if not hasattr(tensor, "detach"):
            reject_file(path, "must hold a state_dict of tensors", f"{key!r}")
        if part != "num_batches_tracked":
            modules.setdefault(name, {})[part] = _array(path, key, tensor)
    layers = [TorchLayer(name, tensors) for name, tensors in modules.items()]
    for layer in layers:
        _check_layer(path, layer)
    return layers, _arguments(loaded)


def _load(path: str | os.PathLike) -> Any:
    try:
        import torch
    except ImportError:
        reject("torch", "must be installed to read a checkpoint (extra `torch`)", None)
    try:
        foreign = []
        if zipfile.is_zipfile(path):  # files of before PyTorch 1.6 are none
            with zipfile.ZipFile(path) as archive:  # whose checksums PyTorch does not compare
                if any(e.compress_type for e in archive.infolist()) or archive.testzip():
                    raise zipfile.BadZipFile
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        inert = torch.serialization.safe_globals([(_Inert, name) for name in foreign])
        with inert, warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        came = error.strerror or "a file that cannot be read"
    except Exception as error:  # whatever a broken or hostile file provokes in the library
        # Without its text, which may recommend to read the file without caution.
        came = f"a damaged or other file ({type(error).__name__})"
    reject_file(path, "must be a PyTorch checkpoint", came)


def _array(path: str | os.PathLike, key: Any, tensor: Any) -> np.ndarray:
    """A tensor in float32; one that spreads few stored numbers over many is refused."""
    try:
        dense = str(tensor.layout) == "torch.strided" and tensor.is_floating_point()
        bytes_ = tensor.numel() * tensor.element_size()
        if dense and bytes_ <= tensor.untyped_storage().nbytes():
            return tensor.detach().float().cpu().numpy()
        came = f"{tensor.layout}, {tensor.dtype}, of shape {tuple(tensor.shape)}"
    except Exception as error:  # as in `_load`
        came = type(error).__name__
    reject_file(path, "must hold dense tensors of floating point", f"{key!r}: {came}")


class _Inert:
    """In place of every class in the file: it is given state and does nothing."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __init__(self, *_, **__):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _check_layer(path: str | os.PathLike, layer: TorchLayer) -> None:
    shapes = {name: tensor.shape for name, tensor in layer.tensors.items()}
    shape = shapes.get("weight", ())
    linear, norm = {"weight": shape, "bias": shape[:1]}, dict.fromkeys(NORM, shape)
    if shapes != {2: linear, 1: norm}.get(len(shape)):
        shapes = ", ".join(f"{k} {v}" for k, v in shapes.items())
        reject_file(
            path, "must hold Linear and BatchNorm1d layers alone", f"{layer.name!r} with {shapes}"
        )
    if not all(np.isfinite(t).all() for t in layer.tensors.values()):
        reject_file(path, "must hold finite weights", f"NaN or infinity in {layer.name!r}")


def _arguments(loaded: Any) -> dict:
    """Of the network: in the trainer's configuration, a dict or an object that holds one."""
    candidates = [loaded, loaded.get("config")]
    if isinstance(candidates[-1], _Inert) and isinstance(candidates[-1].state, Mapping):
        candidates.append(candidates[-1].state.get("_config"))
    for candidate in candidates:
        arch = candidate.get("arch") if isinstance(candidate, Mapping) else None
        arguments = arch.get("args") if isinstance(arch, Mapping) else None
        if isinstance(arguments, Mapping):
            # No argument is a list; lists of lists can take for ever to be compared or shown.
            plain = (int, float, str)
            return {k: v if isinstance(v, plain) else f"{type(v)}" for k, v in arguments.items()}
    return {}
