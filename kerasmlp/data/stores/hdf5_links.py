"""HDF5 files that reach outside themselves: refused before anything else is opened."""

from __future__ import annotations

from typing import Any

import h5py

from kerasmlp.utils.checks import reject_file


def refuse_outside(path: Any, group: h5py.Group) -> None:
    """Rejects a file of which a part lies in another one; links inside it are no matter.

    A label could be any other file's bytes, and a pipe in its place never
    ends. Nothing outside is opened to find out.

    Args:
        path: The file, for the error.
        group: The open file, or the part of it that is to be read.

    Raises:
        InputError: if an external link, external storage or a virtual data
            set is anywhere in it.

    Example:

    >>> with h5py.File("a.h5", "w", driver="core", backing_store=False) as file:
    ...     file["age"] = h5py.ExternalLink("/etc/passwd", "/")
    ...     refuse_outside("a.h5", file)
    Traceback (most recent call last):
        ...
    kerasmlp.utils.checks.InputError: `a.h5` must hold all of its data itself. Received: a link to \
another file in 'age'
    """

    def outside(name: str, item: Any) -> str | None:
        link = "a link to another file" if isinstance(item, h5py.ExternalLink) else None
        what = link or stored_elsewhere(item)
        return what and f"{what} in {name!r}"

    # found, then raised: h5py loses an exception that is raised while it visits links
    try:
        came = group.visititems_links(outside) or group.visititems(outside)
    except SystemError:  # its own as well, about a damaged file
        reject_file(path, "must be a complete HDF5 file", "a damaged or foreign one")
    if came:
        reject_file(path, "must hold all of its data itself", came)


def own_part(path: Any, group: h5py.Group, key: str) -> h5py.Group | h5py.Dataset | None:
    """What a group itself holds under a name, or None; neither a link nor data is followed.

    Raises:
        InputError: if it is a link, or its values lie elsewhere.
    """
    links, name = group.id.links, key.encode("utf-8", "surrogateescape")
    if not links.exists(name):
        return None
    kind = links.get_info(name).type
    what = _LINKS.get(kind, "a link") if kind != h5py.h5l.TYPE_HARD else None
    part = None if what else group[key]
    what = what or stored_elsewhere(part)
    if what:
        where = f"{group.name}/{key}".lstrip("/")
        reject_file(path, "must hold all of its data itself", f"{what} in {where!r}")
    return part


_LINKS = {
    h5py.h5l.TYPE_EXTERNAL: "a link to another file",
    h5py.h5l.TYPE_SOFT: "a link to another part",
}


def stored_elsewhere(item: Any) -> str | None:
    """What is said of a data set whose values are in other files; None of all else."""
    if getattr(item, "is_virtual", False):
        return "a virtual data set of other data"
    return "values stored in another file" if getattr(item, "external", None) else None
