"""HDF5 files that reach outside themselves: refused before anything else is opened."""

from collections.abc import Iterator
from typing import Any

import h5py

from kerasmlp.utils.checks import reject_file

_MOST_LEVELS = 100


def refuse_outside(path: Any, group: h5py.Group) -> None:
    """Rejects a file of which a part lies in another one; links inside it are no matter.

    A label could be any other file's bytes, and a pipe in its place never
    ends. Nothing outside is opened to find out.

    Raises:
        InputError: if an external link, external storage or a virtual data
            set is anywhere in it, or groups in groups without end.

    Example:

    >>> with h5py.File("a.h5", "w", driver="core", backing_store=False) as file:
    ...     file["age"] = h5py.ExternalLink("/etc/passwd", "/")
    ...     refuse_outside("a.h5", file)
    Traceback (most recent call last):
        ...
    kerasmlp.utils.checks.InputError: `a.h5` must hold all of its data itself. Received: a link to \
another file in 'age'
    """

    for place, what in _outside(path, group):
        reject_file(path, "must hold all of its data itself", f"{what} in {place!r}")


def _outside(path: Any, group: h5py.Group) -> Iterator[tuple[str, str]]:
    """Where a part lies in another file, and how; each group and data set is looked at once.

    h5py's own visits open every part by its whole name, which takes hours where groups are
    nested deeply.
    """
    seen, ahead = set(), [((), group.id)]
    while ahead:
        names, opened = ahead.pop()
        if len(names) > _MOST_LEVELS:
            reject_file(path, f"must hold groups in at most {_MOST_LEVELS} levels", "more")
        for name in h5py.Group(opened):
            place, key = (*names, name), name.encode("utf-8", "surrogateescape")
            kind = opened.links.get_info(key).type
            if kind == h5py.h5l.TYPE_EXTERNAL:
                yield "/".join(place), _LINKS[kind]
            if kind != h5py.h5l.TYPE_HARD:
                continue
            part = h5py.h5o.open(opened, key)
            address = h5py.h5o.get_info(part).addr
            if address not in seen and isinstance(part, h5py.h5g.GroupID):
                ahead.append((place, part))
            elif address not in seen and isinstance(part, h5py.h5d.DatasetID):
                what = stored_elsewhere(h5py.Dataset(part))
                if what:
                    yield "/".join(place), what
            seen.add(address)


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
    part = None if what else _opened(h5py.h5o.open(group.id, name))
    what = what or stored_elsewhere(part)
    where = f"{group.name}/{key}".lstrip("/")
    if what:
        reject_file(path, "must hold all of its data itself", f"{what} in {where!r}")
    if part is None:
        reject_file(path, f"must hold a group or values as {where!r}", "a type of values alone")
    return part


def _opened(part: h5py.h5g.GroupID | h5py.h5d.DatasetID) -> h5py.Group | h5py.Dataset | None:
    """As `group[key]` gives it, which takes three times as long."""
    if isinstance(part, h5py.h5d.DatasetID):
        return h5py.Dataset(part, readonly=True)  # of which h5py keeps the shape
    return h5py.Group(part) if isinstance(part, h5py.h5g.GroupID) else None


_LINKS = {
    h5py.h5l.TYPE_EXTERNAL: "a link to another file",
    h5py.h5l.TYPE_SOFT: "a link to another part",
}


def stored_elsewhere(item: Any) -> str | None:
    """What is said of a data set whose values are in other files; None of all else."""
    if not isinstance(item, h5py.Dataset):
        return None
    how = item.id.get_create_plist()
    if how.get_layout() == h5py.h5d.VIRTUAL:
        return "a virtual data set of other data"
    return "values stored in another file" if how.get_external_count() else None
