"""Which files are photos, how their bytes are read, and what their drawn copies are called."""

import os
import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import what_is

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif",
    ".heic", ".heif", ".jp2", ".pgm", ".ppm",
)  # fmt: skip
_NOT_READ = (
    ".arw", ".cr2", ".cr3", ".dng", ".jxl", ".nef", ".orf", ".psd", ".raf", ".raw", ".rw2", ".svg",
)  # fmt: skip
"""Pictures all the same, so they count; of some, a decoder would take the thumbnail."""

_LARGEST = 1 << 30  # bytes of a file
_HEAD = 32  # bytes that tell the kind of a file


@dataclass(frozen=True)
class FoundPhotos:
    """What lies below a folder.

    Attributes:
        photos: Files that are images by their name, or by their content where
            the name does not say.
        links: Linked folders that are left out: they were walked already, or
            hold the folder that they lie in.
        unreadable: Folders that cannot be listed.
    """

    photos: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)


def find_photos(folder: Path) -> FoundPhotos:
    """Walks a folder and those that it links to, each once, without hidden ones.

    Example:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "around").symlink_to(folder)
    >>> _ = [(folder / name).touch() for name in ("a.jpg", "notes.txt", ".b.jpg")]
    >>> found = find_photos(folder)
    >>> [path.name for path in found.photos], [path.name for path in found.links]
    (['a.jpg'], ['around'])
    """
    found = FoundPhotos()
    walked: set[str] = set()
    tops = deque([folder])  # links come after all that lies in the folder itself
    while tops:
        top = tops.popleft()
        if top != folder and _holds(os.path.realpath(top), os.path.realpath(top.parent)):
            found.links.append(top)
            continue
        walk = os.walk(top, onerror=lambda error: found.unreadable.append(Path(error.filename)))
        for root, folders, names in walk:
            real = os.path.realpath(root)
            if real in walked:
                found.links.append(Path(root))
                folders.clear()
                continue
            walked.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            tops.extend(p for p in (Path(root, name) for name in folders) if p.is_symlink())
            paths = (Path(root, name) for name in sorted(names) if not name.startswith("."))
            found.photos.extend(path for path in paths if is_photo(path))
    return found


def is_photo(path: Path) -> bool:
    """Whether a file is an image by its name or else by its content."""
    if is_photo_name(path.name):
        return True
    try:
        return begins_as_image(read_photo(path, _HEAD), plain_name=not path.suffix)
    except OSError:
        return False


def is_photo_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES + _NOT_READ)


def begins_as_image(head: bytes, *, plain_name: bool) -> bool:
    """Whether the first bytes of a file are those of an image.

    Args:
        head: At least the first 18 of them.
        plain_name: Whether its name has no suffix. What begins as a TIFF does may be
            many a thing, so of other names it is none.

    Example:

    >>> begins_as_image(b"GIF89a", plain_name=False), begins_as_image(b"BMW", plain_name=False)
    (True, False)
    """
    if head.startswith((b"II*\0", b"MM\0*")):
        return plain_name
    if head.startswith(b"BM"):  # two letters that a text may begin with
        return int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avif", b"avis", b"mif1", b"msf1") or is_heif(head)
    webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return webp or head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))


def is_heif(head: bytes) -> bool:
    """Whether a file that begins so is HEIC, which Pillow reads only by way of pillow-heif."""
    brands = [head[i : i + 4] for i in (8, *range(16, len(head), 4))]
    return head[4:8] == b"ftyp" and not {b"avif", b"avis"} & {*brands} and (
        brands[0] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
    )  # fmt: skip


def read_photo(path: str | os.PathLike, size: int = -1) -> bytes:
    """Reads a file, or the first `size` bytes of it.

    Raises:
        OSError: if it is no plain file (a pipe would be waited for), is larger than
            a photo can be, or of a kind that is not read.
    """
    path = Path(path)
    if path.name.lower().endswith(_NOT_READ):
        raise OSError(f"{path.suffix} is not read")
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise OSError(f"no plain file of at most {_LARGEST} bytes")
        return file.read(size)


def photos_of(path: Path) -> list[Path]:
    """The photo, or all photos in a folder, in order of their names."""
    if path.is_dir():
        found = sorted(find_photos(path).photos)
        if not found:
            reject_file(path, "must hold photos", "a folder without any")
        return found
    if not path.is_file():
        reject_file(path, "must be a photo, a folder or a store", what_is(path))
    return [path]


def picture_paths(photos: Sequence[Path], folder: Path) -> list[Path]:
    """One PNG per photo, named after it; equal names are numbered.

    Example:

    >>> [str(p) for p in picture_paths([Path("a/1.jpg"), Path("b/1.png")], Path("out"))]
    ['out/1.png', 'out/1-2.png']
    """
    paths: dict[Path, None] = {}
    for photo in photos:
        path, number = folder / f"{photo.stem}.png", 1
        while path in paths:
            number += 1
            path = folder / f"{photo.stem}-{number}.png"
        paths[path] = None
    return list(paths)


def _holds(folder: str, inner: str) -> bool:
    return os.path.commonpath([folder, inner]) == folder
