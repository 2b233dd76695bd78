"""What a JSON object must hold: one schema per file of ours, checked whenever it is read.

A schema is a dict of name → kind. A kind looks at a value and gives None, or the
`Fault` that it found. Names that a schema does not have may hold anything.
"""

import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kerasmlp.utils.checks import InputError, is_number, is_whole, reject_file, shown


class Fault(NamedTuple):
    """What is wrong: where, what was expected there, and what came."""

    place: str
    words: str
    value: Any


Kind = Callable[[str, Any], Fault | None]
Schema = Mapping[str, Kind]

_ABSENT = object()
_LONGEST_TEXT = 100_000
LONGEST_LIST = 1_000_000
_HASH = re.compile("[0-9a-f]{64}")


def check_object(
    path: str | os.PathLike, value: Any, schema: Schema, what: str = "an object"
) -> dict:
    """Holds what was read from a JSON file against a schema.

    Args:
        path: Of the file.
        value: In it.
        schema: Of what it must hold.
        what: The file, in words.

    Raises:
        InputError: naming the file, and the first value that is wrong.

    Example:

    >>> check_object("a.json", {"seed": -1}, {"seed": whole(0, 9)}, "a note")
    Traceback (most recent call last):
        ...
    kerasmlp.utils.checks.InputError: `a.json` must be a note whose `seed` is a whole number \
from 0 to 9. Received: seed=-1
    """
    if not isinstance(value, dict):
        reject_file(path, "must hold an object", type(value).__name__)
    if fault := fields(schema)("", value):
        came = "nothing" if fault.value is _ABSENT else shown(fault.value)
        requirement = f"must be {what} whose `{fault.place}` is {fault.words}"
        reject_file(path, requirement, f"{fault.place.rsplit('.', 1)[-1]}={came}")
    return value


_UNSAID = {"backend": "tensorflow"}  # settings that say nothing of it


def check_same(path: str | os.PathLike, before: dict, now: dict) -> None:
    """Rejects settings of which one is another than before, named by its whole place."""
    was, is_now = _UNSAID | _leaves(before), _UNSAID | _leaves(now)
    for name in {**was, **is_now}:
        if was.get(name) != is_now.get(name):
            requirement = f"must be resumed with the same {name} ({shown(was.get(name))})"
            reject_file(path, requirement, shown(is_now.get(name)))


def _leaves(settings: dict, prefix: str = "") -> dict:
    """Every value under its whole path: `recipe.learning_rate`."""
    leaves = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def kind(words: str, holds: Callable[[Any], bool]) -> Kind:
    """A kind from a test of a value."""

    def check(place: str, value: Any) -> Fault | None:
        return None if value is not _ABSENT and holds(value) else Fault(place, words, value)

    return check


def whole(low: int, high: int) -> Kind:
    return kind(f"a whole number from {low} to {high}", lambda v: is_whole(v) and low <= v <= high)


def number(low: float = -math.inf, high: float = math.inf) -> Kind:
    """A finite number in a range."""
    where = "a finite number"
    if math.isfinite(low) or math.isfinite(high):
        where = f"a number from {low:g} to {high:g}"
    largest = sys.float_info.max  # an int can be larger
    return kind(where, lambda v: is_number(v) and abs(v) <= largest and low <= v <= high)


def text(longest: int = _LONGEST_TEXT) -> Kind:
    """Text that can be written anywhere: no half of a surrogate pair."""
    return kind(
        f"a text of at most {longest} characters",
        lambda v: isinstance(v, str) and len(v) <= longest and not re.search("[\ud800-\udfff]", v),
    )


def one_of(*values: Any) -> Kind:
    words = " or ".join(map(repr, values))
    return kind(words, lambda v: any(v == w and type(v) is type(w) for w in values))


def optional(inner: Kind) -> Kind:
    """Also None, and that the name is not there."""
    return lambda place, v: None if v is None or v is _ABSENT else inner(place, v)


def list_of(inner: Kind, longest: int = LONGEST_LIST) -> Kind:
    is_list = kind(
        f"a list of at most {longest}", lambda v: isinstance(v, list) and len(v) <= longest
    )

    def check(place: str, value: Any) -> Fault | None:
        if fault := is_list(place, value):
            return fault
        return next((f for i, v in enumerate(value) if (f := inner(f"{place}[{i}]", v))), None)

    return check


def dict_of(inner: Kind) -> Kind:
    """An object all of whose values are of one kind."""

    def check(place: str, value: Any) -> Fault | None:
        if not isinstance(value, dict):
            return Fault(place, "an object", value)
        return next((f for k, v in value.items() if (f := inner(f"{place}.{k}"[:80], v))), None)

    return check


def fields(schema: Schema) -> Kind:
    """An object with a schema of its own."""

    def check(place: str, value: Any) -> Fault | None:
        if not isinstance(value, dict):
            return Fault(place, "an object", value)
        prefix = f"{place}." if place else ""
        found = (k(f"{prefix}{name}", value.get(name, _ABSENT)) for name, k in schema.items())
        return next((fault for fault in found if fault), None)

    return check


def made_by(build: Callable[[Any], Any], words: str) -> Kind:
    """What a function of ours takes that refuses bad values itself."""

    def holds(value: Any) -> bool:
        try:
            build(value)
        except (InputError, TypeError, ValueError, KeyError, AttributeError, OverflowError):
            return False
        return True

    return kind(words, holds)


TEMPERATURE = number(0.01, 100)
"""By which logits are divided; fits end at 0.2 and 5."""

flag = kind("true or false", lambda v: isinstance(v, bool))
sha256 = kind("a hash of 64 digits", lambda v: isinstance(v, str) and bool(_HASH.fullmatch(v)))
