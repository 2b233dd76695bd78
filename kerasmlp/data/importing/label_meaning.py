"""What each label column of another program means: classes, numbers, years, and what is unknown."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from kerasmlp.data.age_columns import age_doubt
from kerasmlp.data.importing.gender_codes import said_codes
from kerasmlp.data.importing.import_notes import ImportNotes
from kerasmlp.data.labels import (
    GENDER_CODES,
    UNCLEAR_COMMA,
    UNKNOWN,
    decimal_comma,
    decode_gender,
    is_age_group,
    is_unknown_word,
    parse_age_years,
    repair_age_group,
    says_nothing,
)  # fmt: skip
from kerasmlp.data.stores.label_columns import plain_column, whole_numbers
from kerasmlp.utils.checks import reject_file, shown

GENDER_SOURCES = {"male0": "utkface", "female0": "imdb-wiki", "words": "words"}
GENDER_CODE_CHOICES = ("auto", *GENDER_SOURCES)
_GAPS_OF_AGE, _SHARE_OF_A_GAP = (0, 99), 0.1  # as some write what they do not know
_FEWEST_WITH_A_GAP = 50
_MOST_CLASSES = 20
_GAPS = (-9999, -999, -99, 9999, 99999)
_LONGEST_WORD = 12


def read_label(
    path: Any, name: str, values: np.ndarray, rows: int, notes: ImportNotes
) -> np.ndarray:
    """A label whose name says nothing: classes if its values can be, numbers else.

    Text is text, and its words for nothing are unknown. Bools keep their
    names. Whole floats are integers. A -1 is unknown, except where the other
    values are 0 and 1 or one of them, or negative too, or where gaps say what
    is unknown: there it is a class, kept as text.

    Raises:
        InputError: if the values are neither numbers nor text.

    Example:

    >>> notes = ImportNotes("a.npz")
    >>> read_label("a.npz", "mood", np.array([-1, 0, 1]), 3, notes)
    array(['-1', '0', '1'], dtype='<U2')
    >>> read_label("a.npz", "mood", np.array([2.0, np.nan, 3.0]), 3, notes)
    array([ 2, -1,  3])
    """
    column = _of_rows(values, rows)
    kind = column.dtype.kind
    if kind == "b":
        codes = np.where(np.ma.getmaskarray(column), 2, np.ma.getdata(column))
        return np.array(["False", "True", ""])[codes]
    if kind in "iu":
        return _integers(name, column, notes)
    if kind == "f":
        column = plain_column(path, name, np.ma.filled(column, np.nan), rows)
        whole, bad = whole_numbers(column)
        gaps = np.isnan(column)
        if bad.any() or gaps.all():
            _doubt_gaps(name, column[~gaps], notes)
            return column
        return _integers(name, np.ma.array(whole, mask=gaps), notes)
    column = plain_column(path, name, column, rows)
    return _without_words(name, column, notes) if column.dtype.kind == "U" else column


def _of_rows(values: np.ndarray, rows: int) -> np.ndarray:
    return values[:, 0] if values.shape == (rows, 1) else values


def _integers(name: str, column: np.ndarray, notes: ImportNotes) -> np.ndarray:
    mask = np.ma.getmaskarray(column)
    plain, gaps = np.ma.getdata(column), bool(mask.any())
    known = plain[~mask] if gaps else plain
    _doubt_gaps(name, known, notes)
    if not known.size or known.min() > UNKNOWN or not (known == UNKNOWN).any():
        if gaps and known.size and (known.max() >= 2**63 or known.min() <= -(2**53)):
            return _digits(name, plain, mask, notes)
        filled = plain.astype(np.int64) if gaps else plain
        if known.size and known.min() < UNKNOWN and gaps:
            return np.where(mask, np.nan, plain.astype(np.float64))
        return np.where(mask, UNKNOWN, filled) if gaps else plain
    values = np.unique(known)
    others = set(values[:1000].tolist()) - {UNKNOWN}
    if not (gaps or min(others, default=0) < UNKNOWN or (others and others <= {0, 1})):
        notes.doubt(f"took -1 in {name!r} for unknown")
        return plain
    if len(values) > _MOST_CLASSES and max(known.max(), -known.min()) >= 2**53:
        return _digits(name, plain, mask, notes)
    if len(values) > _MOST_CLASSES:  # a measure; an integer -1 would be unknown in a store
        return np.where(mask, np.nan, plain.astype(np.float64))
    listed = ", ".join(map(str, values.tolist()))
    notes.doubt(
        f"took -1 in {name!r} for a class ({listed}), kept as text: as an integer it is unknown"
    )
    names = np.array(["", *map(str, values.tolist())])
    return names[np.where(mask, 0, np.searchsorted(values, plain) + 1)]


def _doubt_gaps(name: str, known: np.ndarray, notes: ImportNotes) -> None:
    """Says which number, far from all others, may mean that nothing is known."""
    rest = known[~np.isin(known, (*_GAPS, UNKNOWN))]
    for code in _GAPS if rest.size else ():
        times = int((known == code).sum())
        if times > 1 and (rest.min() >= 0 if code < 0 else rest.max() < code / 2):
            notes.doubt(f"took {code} in {name!r}, {times} times, for a number: a gap?")


def _digits(name: str, column: np.ndarray, mask: np.ndarray, notes: ImportNotes) -> np.ndarray:
    """Integers as text: with what is unknown beside them no number can hold them all."""
    notes.doubt(f"kept {name!r} as text, whose digits a number with gaps would change")
    return np.where(mask, "", column.astype(str))


def _without_words(name: str, column: np.ndarray, notes: ImportNotes) -> np.ndarray:
    """Text with "" where a word says that nothing is known."""
    short = np.unique(column[np.strings.str_len(column) <= _LONGEST_WORD])
    found = [v for v in short.tolist() if v and is_unknown_word(v)]
    if not found:
        return column
    notes.words[name] = found
    return np.where(np.isin(column, found), "", column)


def _per_value(column: np.ndarray, decode: Callable[[Any], Any]) -> np.ndarray:
    values, codes = np.unique(column, return_inverse=True)
    return np.array([decode(v.item()) for v in values])[codes]


def cannot_mean(meaning: str, name: str, values: np.ndarray) -> str | None:
    """Why a column that nobody named cannot mean what its name says, or None."""
    kind = values.dtype.kind
    if name.lower() == "years" and kind in "iuf":  # of service, of birth, of a survey
        return age_doubt(name, np.ma.filled(values.astype(np.float64), np.nan))
    if meaning in ("fold", "group") and kind == "b":
        return "True and False, where whole numbers or text are expected"
    if meaning == "fold" and kind not in "iuf":
        return "text, where whole numbers are expected"
    return None


def read_meant(
    path: Any, name: str, values: np.ndarray, rows: int, notes: ImportNotes
) -> np.ndarray:
    """A label whose name says what it means, in one of the three forms; gaps are unknown."""
    column = _of_rows(values, rows)
    if name == "age_group" and column.dtype.kind in "iuf":
        column = np.where(
            np.ma.filled(column == UNKNOWN, True), np.nan, column
        )  # as where no age is
        return read_label(path, name, column, rows, notes)
    if column.dtype.kind == "b" and name == "gender":
        return read_label(path, name, column, rows, notes)
    if column.dtype.kind == "b":
        reject_file(path, f"must hold numbers or text in label {name!r}", "True and False")
    if np.ma.isMaskedArray(column):
        gap = np.nan if column.dtype.kind == "f" else UNKNOWN
        column = column.filled(gap) if gap != UNKNOWN else column.astype(np.int64).filled(gap)
    column = plain_column(path, name, column, rows)
    text = column.dtype.kind == "U" and name in ("fold", "group")
    return _without_words(name, column, notes) if text else column


def read_genders(
    path: Any, column: np.ndarray, codes: str, said: Any, notes: ImportNotes
) -> np.ndarray:
    """Genders of this package from words or codes.

    Raises:
        InputError: if a value is none of those that `codes` knows.
    """
    text = column.dtype.kind == "U"
    if codes in ("male0", "female0"):  # True and False say nothing, unless one says what 1 is
        column = _per_value(column, lambda v: {"True": "1", "False": "0"}.get(v, v))
    if codes == "auto":
        texts = {str(v).strip() for v in np.unique(column) if not says_nothing(v)}
        numeric = texts <= {"0", "1", "0.0", "1.0"}
        codes = "male0" if not text or (texts and numeric) else "words"
        if codes == "male0" and said in (None, "", b""):
            notes.doubt("read gender as 0 male, 1 female; --gender-codes says otherwise")
        elif codes == "male0":
            codes = said_codes(said)
            if codes is None:
                expected = "must say in attribute 'gender_codes' which of 0 and 1 is male, or "
                reject_file(path, expected + "--gender-codes must say it", shown(said))

    found = {str(v).strip().lower().removesuffix(".0") for v in np.unique(column)} - {"", "nan"}
    if codes in ("male0", "female0") and found == {"-1", "1"}:
        came = "-1 and 1, without 0: a gap, or the other gender?"
        reject_file(path, "must hold gender as codes 0 and 1, or as words", came)

    def decode(value: Any) -> int:
        gender = decode_gender(value, GENDER_SOURCES[codes])
        if gender is None and not says_nothing(value):
            words = ", ".join(GENDER_CODES["words"])
            expected = f"one of {words}" if codes == "words" else "codes 0 and 1"
            reject_file(path, f"must hold gender as {expected} (--gender-codes)", repr(value))
        return UNKNOWN if gender is None else int(gender)

    return _per_value(column, decode).astype(np.int8)


def read_ages(
    path: Any, column: np.ndarray, has_groups: bool, notes: ImportNotes
) -> dict[str, np.ndarray]:
    """Years; or age groups, where a table calls its groups `age` as FairFace's does."""
    if column.dtype.kind != "U":
        if (why := age_doubt("age", column)) is not None:
            notes.doubt(f"took numbers for ages in years that hardly are: {why}")
        for gap in _GAPS_OF_AGE:
            share = float(np.mean(column == gap)) if len(column) >= _FEWEST_WITH_A_GAP else 0.0
            if share > _SHARE_OF_A_GAP:
                notes.doubt(f"took age {gap} as one, which {share:.0%} of the rows have: a gap?")
        return {"age_years": np.where(column == UNKNOWN, np.nan, column).astype(np.float32)}
    texts = {t for t in np.unique(column).tolist() if not says_nothing(t)}
    unread = sorted(t for t in texts if parse_age_years(t) is None)
    if unread and len(unread) == len(texts) and not has_groups:
        notes.columns["age_group"] = notes.columns.get("age_years", "age_group")
        return {"age_group": column}
    if unread:
        reject_file(path, "must hold ages in years (--age names the column)", repr(unread[0]))
    _check_commas(path, texts, notes)
    spans = sorted(t for t in texts if re.search(r"[,\s]", t.strip()) and re.search(r"\d\D+\d", t))
    spans = [t for t in spans if not re.fullmatch(r"\d+[.,]\d+\D*", t.strip())]
    if spans:
        notes.doubt(f"took the middle of intervals of age such as {spans[0]!r}")

    def decode(text: str) -> float:
        age_years = parse_age_years(text)
        return np.nan if age_years is None else age_years

    return {"age_years": _per_value(column, decode).astype(np.float32)}


def _check_commas(path: Any, texts: set[str], notes: ImportNotes) -> None:
    found = decimal_comma(sorted(texts))
    if found is None:
        return
    text, told = found
    if not told:
        reject_file(path, UNCLEAR_COMMA, repr(text))
    notes.doubt(f"read the comma in ages such as {text!r} as a decimal one")


def read_age_groups(column: np.ndarray, notes: ImportNotes) -> np.ndarray:
    """Names of age groups, mended where a spreadsheet went over them."""
    if column.dtype.kind in "iuf":
        column = _per_value(column, lambda v: "" if v == UNKNOWN or v != v else str(v))
    column = _without_words("age_group", _per_value(column, repair_age_group), notes)
    foreign = sorted({v for v in np.unique(column).tolist() if v and not is_age_group(v)})
    if foreign:
        notes.doubt(f"age groups such as {foreign[0]!r} say no years: `train-age` cannot use them")
    return column
