"""Layers of an age CNN as plain values: what each kind takes, checked before anything is built."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kerasmlp.utils.checks import check_bool, check_choice, check_int, check_rate, reject

_REQUIRED = object()
_MOST = 1 << 16
_MOST_LAYERS = 1000


def _count(name: str, value: Any) -> int:
    return check_int(name, value, minimum=1, maximum=_MOST)


def _optional_count(name: str, value: Any) -> int | None:
    return None if value is None else _count(name, value)


def _one_of(*choices: Any) -> Callable[[str, Any], Any]:
    return lambda name, value: check_choice(name, value, choices)


def _activation(name: str, value: Any) -> str:
    try:
        if not isinstance(value, str):
            raise ValueError
        keras.activations.get(value)
    except ValueError:
        reject(name, "must be the name of one of Keras' activations", value)
    return value


_WEIGHTS = {
    "initializer": (_one_of("xavier", "gaussian"), "xavier"),
    "regularizer": (_one_of("l1", "l2", None), None),
}
KINDS: dict[str, dict[str, tuple[Callable[[str, Any], Any], Any]]] = {
    "conv": {
        "filters": (_count, _REQUIRED),
        "kernel": (_count, _REQUIRED),
        "stride": (_count, 1),
        "padding": (_one_of("valid", "same"), "valid"),
        "activation": (_activation, "relu"),
        "batch_norm": (check_bool, False),
        **_WEIGHTS,
    },
    "batch_norm": {},
    "pool": {
        "mode": (_one_of("max", "avg"), _REQUIRED),
        "size": (_count, 2),
        "stride": (_optional_count, None),
    },
    "dropout": {"rate": (check_rate, _REQUIRED)},
    "flatten": {},
    "dense": {
        "units": (_count, _REQUIRED),
        "activation": (_activation, "linear"),
        **_WEIGHTS,
    },
}
"""What each kind of layer takes: name, its check, its default."""


def check_specification(specification: Any) -> list[dict[str, Any]]:
    """Checks a list of layers; returns it with all defaults.

    Whether the layers fit each other's shapes is seen when they are built.

    Args:
        specification: One mapping per layer, its `kind` one of `KINDS`.

    Raises:
        InputError: naming the layer, what was expected and what came.

    Example:

    >>> check_specification([{"kind": "pool", "mode": "max"}, {"kind": "dense", "units": 1}])[0]
    {'kind': 'pool', 'mode': 'max', 'size': 2, 'stride': None}
    """
    listed = isinstance(specification, Sequence) and not isinstance(specification, str)
    if not listed or not specification:
        reject("specification", "must be a list of layers", specification)
    if len(specification) > _MOST_LAYERS:
        requirement = f"must be at most {_MOST_LAYERS} layers"
        reject("specification", requirement, len(specification))
    checked = [_checked(f"specification[{k}]", layer) for k, layer in enumerate(specification)]
    last = checked[-1]
    if last["kind"] != "dense" or last["units"] != 1:
        reject("specification", "must end with a dense layer of 1 unit", dict(specification[-1]))
    return checked


def _checked(name: str, layer: Any) -> dict[str, Any]:
    if not isinstance(layer, Mapping):
        reject(name, "must be a mapping with the kind of a layer", layer)
    if "kind" not in layer:
        reject(name, f"must have a kind, one of {', '.join(KINDS)}", dict(layer))
    kind = layer["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        reject(f"{name}.kind", f"must be one of {', '.join(map(repr, KINDS))}", kind)
    checks = KINDS[kind]
    for key in layer:
        if key != "kind" and key not in checks:
            takes = f"takes {', '.join(checks)}" if checks else "takes nothing more"
            reject(name, f"must be a layer of kind {kind!r}, which {takes}", dict(layer))
    checked = {"kind": kind}
    for key, (check, default) in checks.items():
        value = layer.get(key, default)
        if value is _REQUIRED:
            reject(name, f"must have {key!r}, as a layer of kind {kind!r}", dict(layer))
        checked[key] = value if value is default else check(f"{name}.{key}", value)
    return checked
