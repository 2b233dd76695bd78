"""What a label means: gender codes, age in years, age groups, and what is not known."""

import enum
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kerasmlp.utils.checks import check_choice, reject

NUM_YEARS = 101
"""Years 0..100; older people count as 100."""

UNKNOWN = -1
"""An integer label that is not known; a fraction is NaN then, and a text empty."""

UNKNOWN_WORDS = frozenset(
    ("", "na", "n/a", "#n/a", "nan", "none", "null", "nat", "<na>", "?", "unknown")
)
"""What tables write, in small or capital letters, where a label is not known."""


def unknown_of(kind: str) -> str | float | int:
    """What stands for nothing known in a column of NumPy's kind `U`, `f`, or else of integers."""
    return {"U": "", "f": np.nan}.get(kind, UNKNOWN)


def is_unknown(column: np.ndarray) -> np.ndarray:
    """Mask of the rows whose label is not known.

    Example:

    >>> is_unknown(np.array([1.5, np.nan])), is_unknown(np.array(["", "a"]))
    (array([False,  True]), array([ True, False]))
    """
    return np.isnan(column) if column.dtype.kind == "f" else column == unknown_of(column.dtype.kind)


def is_unknown_word(text: str) -> bool:
    """Whether a table says by a word that it does not know."""
    return text.strip().lower() in UNKNOWN_WORDS


def says_nothing(value: object) -> bool:
    """Whether a word, or a code, means in a column of a known meaning that nothing is known.

    Example:

    >>> says_nothing(" N/A "), says_nothing("-1"), says_nothing(-1.0), says_nothing("f")
    (True, True, True, False)
    """
    text = str(value).strip().lower().removesuffix(".0")
    return text in ("u", str(UNKNOWN)) or is_unknown_word(text)


class Gender(enum.IntEnum):
    """The one gender code of this package. Data sets contradict each other: see `GENDER_CODES`."""

    MALE = 0
    FEMALE = 1


GENDER_NAMES = tuple(g.name.lower() for g in Gender)

GENDER_CODES: dict[str, dict[str, Gender]] = {
    "utkface": {"0": Gender.MALE, "1": Gender.FEMALE},
    "imdb-wiki": {"0": Gender.FEMALE, "1": Gender.MALE},
    "adience": {"m": Gender.MALE, "f": Gender.FEMALE},
    "words": {
        **dict.fromkeys(("male", "man", "m"), Gender.MALE),
        **dict.fromkeys(("female", "woman", "f"), Gender.FEMALE),
    },
}
"""How each source spells gender; `words` serves FairFace and tables made by hand."""


def decode_gender(value: object, source: str) -> Gender | None:
    """Returns the gender that `value` means in `source`, or None where it means none.

    Example:

    >>> decode_gender("1", "utkface"), decode_gender(1.0, "imdb-wiki")
    (<Gender.FEMALE: 1>, <Gender.MALE: 0>)
    >>> decode_gender("u", "adience") is None
    True
    """
    check_choice("source", source, GENDER_CODES)
    # a table with gaps turns its codes into 0.0 and 1.0
    return GENDER_CODES[source].get(str(value).strip().lower().removesuffix(".0"))


@dataclass(frozen=True)
class AgeClasses:
    """Age classes and how a year falls into them.

    Attributes:
        name: `"years"`, `"adience"`, `"fairface"` or the bins as given.
        class_names: One name per class, youngest first.
        year_to_class: Class of each year 0..100.

    Example:

    >>> adience = age_classes("adience")
    >>> adience.encode([3, 29, 116])
    array([0, 4, 7])
    >>> adience.class_names[4]
    '25-32'
    """

    name: str
    class_names: tuple[str, ...]
    year_to_class: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def centers(self) -> np.ndarray:
        """Mean year of each class, shape `(num_classes,)`."""
        classes = np.asarray(self.year_to_class)
        return np.array([np.flatnonzero(classes == k).mean() for k in range(self.num_classes)])

    def encode(self, age_years) -> np.ndarray:
        """Returns the class of each age; unknown (NaN or negative) becomes -1."""
        age_years = np.asarray(age_years, np.float64)
        known = np.isfinite(age_years) & (age_years >= 0)
        year = np.clip(np.rint(np.where(known, age_years, 0)), 0, NUM_YEARS - 1).astype(int)
        return np.where(known, np.asarray(self.year_to_class)[year], UNKNOWN)

    def from_years(self, year_probabilities: np.ndarray) -> np.ndarray:
        """Sums probabilities of years, shape `(..., 101)`, to those of classes."""
        return year_probabilities @ np.eye(self.num_classes)[list(self.year_to_class)]


ADIENCE_CENTERS = (1, 5, 10, 17.5, 28.5, 40.5, 50.5, 80)
ADIENCE_GROUPS = ("0-2", "4-6", "8-12", "15-20", "25-32", "38-43", "48-53", "60-100")
FAIRFACE_GROUPS = (
    "0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70",
)  # fmt: skip

_CLASSES_EXPECTED = "must be 'years', 'adience', 'fairface' or bins like '0-12,13-19,20+'"


def age_classes(spec: str) -> AgeClasses:
    """Returns the age classes that `spec` names.

    Args:
        spec: `"years"` (0..100), `"adience"` (8 groups; a year belongs to the
            nearest group centre, the younger one in a tie), `"fairface"` (9
            groups), or own bins from 0 on without gaps, the last one open or
            up to 100: `"0-12,13-19,20-64,65+"`.

    Raises:
        InputError: if the bins overlap, leave a gap or cannot be read.

    Example:

    >>> age_classes("0-17,18+").encode([17, 18])
    array([0, 1])
    """
    if not isinstance(spec, str):
        reject("classes", _CLASSES_EXPECTED, spec)
    years = np.arange(NUM_YEARS)
    if spec == "years":
        return AgeClasses(spec, tuple(str(y) for y in years), tuple(int(y) for y in years))
    if spec == "adience":
        nearest = np.abs(years[:, None] - np.array(ADIENCE_CENTERS)).argmin(axis=1)
        return AgeClasses(spec, ADIENCE_GROUPS, tuple(int(k) for k in nearest))
    if spec == "fairface":
        starts = [0, 3, *range(10, 71, 10)]
        return _from_starts(spec, FAIRFACE_GROUPS, starts)
    names = tuple(part.strip() for part in spec.split(","))
    bounds = [re.fullmatch(r"(\d+)(?:-(\d+)|\+)?", name) for name in names]
    if not all(bounds) or len(names) < 2:
        reject("classes", _CLASSES_EXPECTED, spec)
    starts = [int(m[1]) for m in bounds]
    open_end = names[-1].endswith("+")
    ends = [int(m[2] or m[1]) for m in bounds[: len(names) - open_end]]
    if open_end:
        ends.append(NUM_YEARS - 1)
    if (
        starts != [0, *(end + 1 for end in ends[:-1])]
        or ends[-1] != NUM_YEARS - 1
        or any(s > e for s, e in zip(starts, ends, strict=True))
    ):
        reject("classes", "must cover the years 0 to 100 once, without gap or overlap", spec)
    return _from_starts(spec, names, starts)


def _from_starts(name: str, class_names: tuple[str, ...], starts: list[int]) -> AgeClasses:
    year_to_class = np.searchsorted(starts, np.arange(NUM_YEARS), side="right") - 1
    return AgeClasses(name, class_names, tuple(int(k) for k in year_to_class))


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(rf"(\d{{1,2}})-({'|'.join(_MONTHS)})|({'|'.join(_MONTHS)})-(\d{{1,2}})")


def repair_age_group(text: str) -> str:
    """Undoes what spreadsheets do to the names of age groups: `3-9` becomes `03-Sep`.

    Example:

    >>> [repair_age_group(text) for text in ("03-Sep", "Oct-19", "08-Dec", "20–29", "60-100")]
    ['3-9', '10-19', '8-12', '20-29', '60-100']
    """
    text = re.sub(r"(?<=\d) *- *(?=\d)", "-", str(text).strip().replace("–", "-"))
    date = _DATE.fullmatch(text.lower())
    if not date:
        return text
    low, high = sorted((int(date[1] or date[4]), _MONTHS.index(date[2] or date[3]) + 1))
    return f"{low}-{high}"


_AGE_GROUP = re.compile(r"\d+-\d+|\d+\+|(?:more than|over) \d+")


def is_age_group(text: str) -> bool:
    """Whether the name of a group says which years it means: `25-32`, `70+`, `more than 70`."""
    return bool(_AGE_GROUP.fullmatch(text))


_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)"
_AGE = re.compile(rf"\(?\s*{_NUMBER}\s*\)?\s*([a-z. ]*)")
_AGES = re.compile(rf"([(\[]?)\s*(-?){_NUMBER}\s*(,\s?|\bto\b)\s*{_NUMBER}\s*([)\]]?)\s*([a-z. ]*)")
_UNITS = {
    **dict.fromkeys(("", "years", "year", "yrs", "yr", "y", "y.o.", "yo", "years old"), 1.0),
    **dict.fromkeys(("year old", "yrs old", "y.o"), 1.0),
    **dict.fromkeys(("months", "month", "mos", "mo", "months old", "month old"), 12.0),
    **dict.fromkeys(("weeks", "week", "weeks old"), 365.25 / 7),
    **dict.fromkeys(("days", "day", "days old"), 365.25),
}


UNCLEAR_COMMA = "must hold ages as 25.5 or (25, 32), not with a comma that may mean either"


_OLDEST_YEARS = 130
_DECIMAL_COMMA = re.compile(r"^(\d+),(\d+)(?![\d,])(.*)")  # no brackets before it, no space after


_FEWEST_TELLING = 0.1  # of the ages with a comma; of a real column about a third or more tell


def decimal_comma(texts: Iterable[str]) -> tuple[str, bool] | None:
    """The first age with a comma that `parse_age_years` reads as a decimal one, of a whole column.

    `25,5 years` is a number, but `25,32 years` may be from 25 to 32: some value must tell.

    Returns:
        The text and whether the column tells, or None where there is no such comma.

    Example:

    >>> decimal_comma(["25,32", "38,43"]), decimal_comma(["25,32", "38,5"]), decimal_comma(["25"])
    (('25,32', False), ('25,32', True), None)
    """
    found = [(t, m) for t in texts if (m := _DECIMAL_COMMA.match(t.strip()))]
    found = [(t, m) for t, m in found if parse_age_years(t) is not None]
    if not found:
        return None
    tell = sum(_is_decimal(*m.groups()) for _, m in found)
    return found[0][0].strip(), tell > _FEWEST_TELLING * len(found)  # fewer may be mistyped


def _is_decimal(whole: str, after: str, unit: str) -> bool:
    """Whether both cannot be the ends of a group, which is never from the older to the younger."""
    end = parse_age_years(f"{after} {unit}")
    return float(after) < float(whole) or (end is not None and end > _OLDEST_YEARS)


def parse_age_years(text: str) -> float | None:
    """Returns the age in years that a text means, else None; of an interval its middle.

    Example:

    >>> parse_age_years("(25, 32)"), parse_age_years("35"), parse_age_years("None")
    (28.5, 35.0, None)
    >>> [parse_age_years(text) for text in ("25,5", "(24, 32]", "25 to 32", "3 months")]
    [25.5, 28.0, 28.5, 0.25]
    """
    text = " ".join(str(text).lower().split())
    text = _DECIMAL_COMMA.sub(r"\1.\2\3", text)
    age, ages = _AGE.fullmatch(text), _AGES.fullmatch(text)
    if age is not None:
        bounds, unit = (float(age[1]),) * 2, age[2]
    elif ages is not None and bool(ages[1]) == bool(ages[6]):
        # pandas begins its first interval a little below what is in it
        bounds, unit = (0.0 if ages[2] else float(ages[3]), float(ages[5])), ages[7]
    else:
        return None
    per_year = _UNITS.get(unit.strip())
    if per_year is None or not math.isfinite(sum(bounds)) or bounds[0] > bounds[1]:
        return None
    return sum(bounds) / 2 / per_year
