"""Whether a column of numbers can be ages in years; what nobody called an age is looked at."""

import numpy as np

from kerasmlp.data.labels import NUM_YEARS, UNKNOWN
from kerasmlp.utils.checks import reject_column

_OLDEST_YEARS = 120
_SHARE_OF_SLIPS = 0.01
_MIN_SPREAD_YEARS = 5.0
_MIN_SPREAD_OF_OTHERS_YEARS = 15.0  # emotions 0..6 and stars 1..10 are no ages


def check_age_years(label: str, column: np.ndarray, file: str = "") -> None:
    """Rejects numbers that are hardly ages: scaled, standardised, years of birth, scores, codes.

    Args:
        label: Name of the column; one that begins with `age` may be narrower,
            and hold fractions of years.
        column: Numbers; NaN and -1 are unknown.
        file: Of several, that which they are from.

    Raises:
        InputError: if range, fractions or spread are not those of ages.

    Example:

    >>> check_age_years("age_years", np.array([0.5, 34.2, 71.0]))
    >>> check_age_years("age_years", np.array([0.05, 0.342, 0.71]))
    Traceback (most recent call last):
        ...
    kerasmlp.utils.checks.InputError: `age_years` must hold ages in years (say --task years if it \
does). Received: age_years='3 numbers from 0.05 to 0.71, none above 1: scaled?'
    """
    if (doubt := age_doubt(label, column)) is not None:
        known = _known(column)
        came = f"{len(known)} numbers from {known.min():.6g} to {known.max():.6g}, {doubt}"
        came = f"of {file} {came}" if file else came
        reject_column(label, "must hold ages in years (say --task years if it does)", came)


def _known(column: np.ndarray) -> np.ndarray:
    known = np.asarray(column, np.float64)
    return known[np.isfinite(known) & (known != UNKNOWN)]


def count_clipped(column: np.ndarray) -> int:
    """How many ages are above 100, and count as 100.

    Example:

    >>> count_clipped(np.array([100.0, 101.0, np.nan, 116.0]))
    2
    """
    return int((np.asarray(column, np.float64) > NUM_YEARS - 1).sum())


def age_doubt(label: str, column: np.ndarray) -> str | None:
    """Why the numbers of a column are hardly ages, or None if they can be.

    Example:

    >>> age_doubt("years", np.array([1969.0, 2001.0]))
    '100% of them above 120: another unit, or years of birth?'
    """
    known = _known(column)
    named_age = label.lower().startswith("age")
    if not len(known):
        return None
    if (known < 0).any():
        return f"{(known < 0).sum()} of them below 0: standardised?"
    if known.max() <= 1:
        return "none above 1: scaled?"
    too_old = float((known > _OLDEST_YEARS).mean())
    if too_old > _SHARE_OF_SLIPS:
        return f"{too_old:.0%} of them above {_OLDEST_YEARS}: another unit, or years of birth?"
    spread = float(np.subtract(*np.percentile(known, (99, 1))))
    least = _MIN_SPREAD_YEARS if named_age else _MIN_SPREAD_OF_OTHERS_YEARS
    if spread < least:
        return f"nearly all within {spread:.3g}: a score, or codes of classes?"
    # multiples of a half are middles of groups
    fractions = float((np.abs(2 * known - np.rint(2 * known)) > 1e-3).mean())
    if fractions > 0.5 and (not named_age or spread < _MIN_SPREAD_OF_OTHERS_YEARS):
        return f"{fractions:.0%} of them fractions: a score?"
    return None
