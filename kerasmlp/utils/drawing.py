"""Pictures that finished work can do without, and names as a picture can show them."""

import contextlib
import functools
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

_JOINERS = "\u200c\u200d"  # without width, and part of how words are spelled


@contextlib.contextmanager
def drawing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields the path to a block that draws a picture; if the block fails, says so and goes on.

    What the picture shows has been computed, perhaps for hours: it is not lost
    because it cannot be drawn. Nothing that is wanted may be written in the block.

    Example:

    >>> with contextlib.redirect_stderr(sys.stdout), drawing("runs/age/curves.png") as path:
    ...     raise ValueError("no such colour")
    note: curves.png could not be drawn: ValueError: no such colour
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a tight layout: to be seen in the picture
            yield path
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(f"note: {path.name} could not be drawn: {reason}", file=sys.stderr)


def shown(text: object, length: int = 32) -> str:
    r"""A name in at most so many characters, each of which the font of pictures has.

    Others are written as in Python, so that names which differ still look so.
    The middle of a long name gives way to an ellipsis.

    Example:

    >>> print(shown("two\nlines, \u4e2d"), shown("x" * 500 + ".jpg", 11))
    two\nlines, \u4e2d xxxxx…x.jpg
    """
    glyphs = _glyphs(_families())
    name = "".join(_written(char, glyphs) for char in str(text))
    if len(name) <= length:
        return name
    return f"{name[: length // 2]}…{name[len(name) - (length - 1) // 2 :]}"


def label(text: object, length: int = 32) -> str:
    r"""A name as `shown`, for a figure: dollars begin no formula, a first `_` hides no legend.

    Example:

    >>> print(label("$1_$2"), [label("_private")])
    \$1_\$2 [' _private']
    """
    name = shown(text, length).replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _written(char: str, glyphs: frozenset[int]) -> str:
    if unicodedata.category(char) == "Zs":
        return " "
    if ord(char) in glyphs and (char.isprintable() or char in _JOINERS):
        return char
    return char.encode("unicode_escape").decode()


def _families() -> tuple[str, ...]:
    import matplotlib

    return tuple(matplotlib.rcParams["font.family"])


@functools.cache
def _glyphs(families: tuple[str, ...]) -> frozenset[int]:
    from matplotlib import font_manager

    properties = [font_manager.FontProperties(family=[family]) for family in families]
    fonts = [font_manager.get_font(font_manager.findfont(p)) for p in properties]
    return frozenset().union(*(font.get_charmap() for font in fonts))
