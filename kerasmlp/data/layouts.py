"""The data sets that are known, and what is to be said of each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk, and which face of an image its labels mean.

    Attributes:
        source: Name of the data set, or None for the user's own photos.
        licence: Of the data, in words, or None.
        face: The face to take unless told otherwise.
    """

    source: str | None
    licence: str | None
    face: str


LAYOUTS = {
    "folder": Layout(None, None, "only"),
    "classes": Layout(None, None, "only"),
    "csv": Layout(None, None, "only"),
    "adience": Layout("Adience", "research only", "centre"),
    "imdb-wiki": Layout("IMDB-WIKI", "academic research only", "only"),
    "utkface": Layout("UTKFace", "non-commercial research only", "centre"),
    "fairface": Layout("FairFace", "CC BY 4.0 (Kärkkäinen and Joo, WACV 2021)", "centre"),
}
