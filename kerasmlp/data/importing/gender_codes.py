"""What the attribute `gender_codes` of a file says: which number is which gender."""

import re
from typing import Any

from kerasmlp.data.labels import GENDER_CODES, UNKNOWN_WORDS, Gender
from kerasmlp.data.sources.source import as_text

_WORDS = {
    **GENDER_CODES["words"],
    **dict.fromkeys(("males", "men"), Gender.MALE),
    **dict.fromkeys(("females", "women"), Gender.FEMALE),
}
_OTHERS = UNKNOWN_WORDS | {"is", "are", "for", "and", "means", "gender", "sex", "code", "codes"}


def said_codes(said: Any) -> str | None:
    """`male0` or `female0`, if a text says it beyond doubt; else None.

    Both genders must come, each with a digit of its own, and all numbers
    before their words or all after them.

    Example:

    >>> said_codes("0 = woman, 1 = man"), said_codes('{"male": 0, "female": 1}')
    ('female0', 'male0')
    >>> said_codes("male 0 female"), said_codes("1 male, 2 female")
    (None, None)
    """
    text = as_text(said)
    tokens = re.findall(r"-?\d[\d.]*|[^\W\d_]+", text.lower())
    tokens = [t for t in tokens if t not in _OTHERS and t != "-1"]
    digits, words = tokens[::2], tokens[1::2]
    if tokens and tokens[0] in _WORDS:
        digits, words = words, digits
    if sorted(digits) != ["0", "1"] or {_WORDS.get(w) for w in words} != set(Gender):
        return None
    return "male0" if _WORDS[words[digits.index("0")]] is Gender.MALE else "female0"
