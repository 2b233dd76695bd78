"""What the texts of a CSV column are: whole numbers, fractions, bools, or the texts themselves."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kerasmlp.data.labels import UNKNOWN_WORDS

GAPS = sorted(
    {form for word in UNKNOWN_WORDS for form in (word, word.upper(), word.title())}
    | {"#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"}
    | {"NaN", "NaT", "n/A"}
)
"""What stands for no number: our words in any usual case, and pyarrow's own list."""
_LOWER_GAPS = sorted({gap.lower() for gap in GAPS})
_INTEGER = r"^[+-]?\d+$"
_POINT = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_COMMA = r"^[+-]?\d+(,\d+)?([eE][+-]?\d+)?$"
_SURE_COMMA = r"^[+-]?(0,\d+|\d+,(\d{1,2}|\d{4,}))([eE][+-]?\d+)?$"
_MEMBER = re.compile(r"(?<!\d)\d{1,9}\]?\Z")
_FEWEST_MEMBERS = 3
_TRIED = 1000


def of_families(names: Sequence[str]) -> set[str]:
    """The columns that are one of many numbered ones: dimensions, which no text needs to name.

    Example:

    >>> sorted(of_families(["id", "e0", "e1", "e2", "box1"]))
    ['e0', 'e1', 'e2']
    """
    numbers = {name: number for name in names if (number := _MEMBER.search(name.strip()))}
    prefixes = {name: name.strip()[: number.start()].lower() for name, number in numbers.items()}
    counts = Counter(prefixes.values())
    return {name for name, prefix in prefixes.items() if counts[prefix] >= _FEWEST_MEMBERS}


def has_decimal_commas(table: Any, families: Collection[str]) -> bool:
    """Whether the numbers of a file have decimal commas: one sign for all of it.

    `1,234` alone could be a thousand: some number must be none of those. The
    columns of an embedding tell, where there are some; else all columns, of
    which none may have a decimal point.
    """
    told = [n for n in table.column_names if n in families] or table.column_names
    if any(pa.types.is_floating(table.schema.field(n).type) for n in told):
        return False
    texts = [_known(table[n]) for n in told if pa.types.is_string(table.schema.field(n).type)]
    if any(_all(t, _POINT) and not _all(t, _INTEGER) for t in texts if t is not None):
        return False
    commas = [t for t in texts if t is not None and _all(t, _COMMA)]
    return any(pc.any(pc.match_substring_regex(t, _SURE_COMMA)).as_py() for t in commas)


def typed(name: str, column: Any, *, commas: bool) -> tuple[Any, str | None]:
    """Texts as numbers or bools, if each can be got back or at least told from the others.

    Returns:
        The column, and what is to be said where numbers stay text.
    """
    known = _known(column)
    if known is None:
        return column, None
    if known.null_count == len(known):
        return pa.chunked_array([pa.nulls(len(known))]), None
    if _all(known, r"^(?i)(true|false)$"):
        return pc.equal(pc.utf8_lower(known), "true"), None
    if _all(known, _INTEGER):
        try:
            numbers = known.cast(pa.int64())
            if pc.all(pc.equal(numbers.cast(pa.string()), known)).as_py():
                return numbers, None
        except pa.ArrowInvalid:
            pass
        return column, f"kept {name!r} as text, whose digits a number would change"
    if commas and _all(known, _POINT):
        return column, f"kept {name!r} as text: a point, where other numbers have decimal commas"
    if not _all(known, _COMMA if commas else _POINT):
        return column, None
    numbers = pc.replace_substring(known, ",", ".").cast(pa.float64())
    if pc.count_distinct(numbers).as_py() < pc.count_distinct(known).as_py():
        return column, f"kept {name!r} as text, of which some differ and are the same number"
    return numbers, None


def _known(column: Any) -> Any:
    """The texts without blanks around them, null for gaps; or None if they are no numbers."""
    first = (t.strip() for t in column.slice(0, _TRIED).to_pylist() if t is not None)
    first = next((t for t in first if t.lower() not in _LOWER_GAPS), "0")
    if not re.fullmatch(r"[\d+\-.,eE]+|(?i:true|false)", first):
        return None
    texts = pc.utf8_trim_whitespace(column)
    gaps = pc.is_in(pc.utf8_lower(texts), value_set=pa.array(_LOWER_GAPS))
    return pc.if_else(gaps, pa.scalar(None, texts.type), texts)


def _all(texts: Any, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(texts, pattern)).as_py() is not False
