"""Argument checks and the one form of error that a user of this package sees."""

import numbers
import re
import sys
from collections.abc import Collection
from typing import Any, NoReturn

_LONGEST_SENTENCE = 300
_LONGEST_VALUE = 120
_UNPRINTABLE = re.compile(
    r"[^\S ]+|[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class InputError(ValueError):
    """Bad input: an argument, a file or a label that cannot be worked with.

    Commands print its text as one sentence and exit with code 2.

    Attributes:
        argument: Of Python that is bad, or None; a command names its option instead.
    """

    def __init__(self, sentence: str, argument: str | None = None):
        super().__init__(sentence)
        self.argument = argument


class DivergedError(InputError):
    """Weights that ran away: a lower learning rate would have kept them finite."""

    def __init__(self, learning_rate: float):
        came = f"Received: learning_rate={learning_rate!r}"
        sentence = f"`learning_rate` must be lower: the weights diverged. {came}"
        super().__init__(sentence, "learning_rate")


def reject(name: str, requirement: str, received: Any) -> NoReturn:
    """Raises the one form of error: what was expected of `name`, and what came.

    Args:
        name: The argument or file as the user wrote it.
        requirement: The rest of the sentence, from "must" on.
        received: The offending value.

    Raises:
        InputError: always.

    Example:

    >>> reject("dropout_rate", "must be in [0, 1)", 1.2)
    Traceback (most recent call last):
        ...
    kerasmlp.utils.checks.InputError: `dropout_rate` must be in [0, 1). Received: dropout_rate=1.2
    """
    raise InputError(f"`{name}` {requirement}. Received: {name}={shown(received)}", name)


def reject_column(name: str, requirement: str, received: Any) -> NoReturn:
    """As `reject`, for a column of a store, which is no argument whatever its name."""
    raise InputError(f"`{name}` {requirement}. Received: {name}={shown(received)}")


def reject_file(path: Any, requirement: str, received: str) -> NoReturn:
    """As `reject`, for a file: the path is the name, and what came is prose."""
    raise InputError(f"`{path}` {requirement}. Received: {received}")


def shown(value: Any) -> str:
    """A value for the end of a sentence, however long it is."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no more than some thousand digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def one_sentence(text: Any) -> str:
    """An error on one line for a screen: cut in its middle, without what moves a cursor.

    Example:

    >>> one_sentence("`a\\x1b[31m.h5` must be\\na store")
    '`a\\\\x1b[31m.h5` must be a store'
    """

    def escape(match: re.Match) -> str:
        return " " if match[0].isspace() else match[0].encode("unicode_escape").decode("ascii")

    line = _UNPRINTABLE.sub(escape, str(text))
    if len(line) <= _LONGEST_SENTENCE:
        return line
    # A long file name stands at the beginning, and what came at the end.
    return f"{line[: _LONGEST_SENTENCE - 141]} … {line[-138:]}"


def is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_int(name: str, value: Any, *, minimum: int, maximum: int | None = None) -> int:
    """Returns `value` as an int if it is a whole number of at least `minimum`."""
    if not is_whole(value) or value < minimum:
        reject(name, f"must be an integer >= {minimum}", value)
    if maximum is not None and value > maximum:
        reject(name, f"must be at most {maximum}", value)
    return int(value)


def check_optional_int(
    name: str, value: Any, *, minimum: int, maximum: int | None = None
) -> int | None:
    return None if value is None else check_int(name, value, minimum=minimum, maximum=maximum)


def check_seed(value: Any) -> int | None:
    """Returns a seed below 2^31, the widest that every backend takes, or None."""
    if value is not None and check_int("seed", value, minimum=0) >= 1 << 31:
        reject("seed", "must be below 2147483648", value)
    return value


def check_each_once(name: str, values: Collection) -> None:
    """Rejects an empty list, or one that names something twice."""
    if not values or len(set(values)) < len(values):
        reject(name, "must be given, and each once", list(values))


def check_rate(name: str, value: Any) -> float:
    """Returns `value` as a float if it is a probability to drop, in [0, 1)."""
    if not is_number(value) or not 0 <= value < 1:
        reject(name, "must be in [0, 1)", value)
    return float(value)


def check_positive(name: str, value: Any, *, zero: bool = False) -> float:
    """Returns `value` as a float if it is finite and positive (or zero, where allowed)."""
    largest = sys.float_info.max  # an int can be larger
    good = is_number(value) and value <= largest and (value > 0 or (zero and value == 0))
    if not good:
        reject(name, f"must be a finite number {'>= 0' if zero else '> 0'}", value)
    return float(value)


def check_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        reject(name, "must be True or False", value)
    return value


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    if value not in choices:
        listed = ", ".join(repr(c) for c in choices)
        reject(name, f"must be one of {listed}", value)
    return value
