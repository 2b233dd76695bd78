"""JSON as the standard has it: finite numbers, no name twice, and no more nesting than we write."""

import json
import math
from typing import Any

MAX_DEPTH = 64
_MOST_DIGITS = 20  # of whole numbers, as those of 64 bits
_SPELLED = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def loads(text: str, *, infinite: bool = False) -> Any:
    """Reads JSON.

    Args:
        text: To read.
        infinite: Take `NaN` and `Infinity` too.

    Raises:
        ValueError: with what is wrong, in a few words.

    Example:

    >>> loads('{"loss": NaN}')
    Traceback (most recent call last):
        ...
    ValueError: NaN, which is no number
    """
    try:
        value = json.loads(
            text,
            parse_constant=_SPELLED.get if infinite else _no_constant,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError(f"more than {MAX_DEPTH} levels") from None
    _check_depth(value)
    return value


def dumps(value: Any, **how: Any) -> str:
    """As `json.dumps`, but NaN and infinity are a `ValueError`."""
    return json.dumps(value, allow_nan=False, **how)


def spelled(value: Any) -> Any:
    """A copy whose numbers that JSON does not know are their names.

    Example:

    >>> dumps(spelled({"loss": math.inf}))
    '{"loss": "Infinity"}'
    """
    if isinstance(value, float) and not math.isfinite(value):
        return next(k for k, v in _SPELLED.items() if v == value or v != v)
    if isinstance(value, dict):
        return {k: spelled(v) for k, v in value.items()}
    return [spelled(v) for v in value] if isinstance(value, list | tuple) else value


def unspelled(value: Any) -> Any:
    """What `spelled` was given.

    Example:

    >>> unspelled({"loss": ["Infinity", 1.0]})
    {'loss': [inf, 1.0]}
    """
    if isinstance(value, str):
        return _SPELLED.get(value, value)
    if isinstance(value, dict):
        return {k: unspelled(v) for k, v in value.items()}
    return [unspelled(v) for v in value] if isinstance(value, list) else value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name}, which is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]}, which is too large a number")
    return value


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits.lstrip('-'))} digits")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in value if names.count(n) > 1)[:40]!r} twice")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)
        ]
        level = [child for children in level for child in children]
        if not level:
            return
    raise ValueError(f"more than {MAX_DEPTH} levels")
