"""How every picture is written: whole or not at all, and its names as they are."""

import os

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from kerasmlp.utils.files import atomic_path


def save_png(figure: Figure, path: str | os.PathLike) -> None:
    for text in figure.findobj(Text):
        text.set_usetex(False)  # whatever its user likes: names are no TeX
    with atomic_path(path) as temporary, matplotlib.rc_context({"text.usetex": False}):
        figure.savefig(temporary, dpi=120, bbox_inches="tight", format="png")
