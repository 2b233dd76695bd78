"""How much memory there is for this process."""

import os
from collections.abc import Iterator
from pathlib import Path

_SYSTEM, _OWN_GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # version 1 says it by a number as large as it can be


def available_bytes() -> int:
    """Bytes that can be taken without another process, or this one, being put out or ended.

    Of a container it is what its limit leaves. Where the system does not tell, it is half of
    all memory.

    Example:

    >>> available_bytes() > 1_000_000
    True
    """
    found = [left for left in (_of_system(), _of_group()) if left is not None]
    return min(found) if found else memory_bytes() // 2


def memory_bytes() -> int:
    """Of the whole machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_system() -> int | None:
    lines = _numbers(_SYSTEM)
    return None if "MemAvailable:" not in lines else 1024 * lines["MemAvailable:"]


def _of_group() -> int | None:
    """What the smallest of the limits leaves, of the own group and of those that it is in."""
    found = []
    for folder, most_name, used_name, cached_name in _groups():
        try:
            most = int((folder / most_name).read_text())
            used = int((folder / used_name).read_text())
        except (OSError, ValueError):  # no limit, or told otherwise
            continue
        cached = _numbers(folder / "memory.stat").get(cached_name, 0)  # files, which make room
        if most < _NO_LIMIT:
            found.append(max(most - used + cached, 0))
    return min(found, default=None)


def _groups() -> Iterator[tuple[Path, str, str, str]]:
    """Folders of groups of either version, and what in them says the limit, the use and the cache.

    The path that a container is told may be one of the host, where it sees its own folder as the
    root.
    """
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        lines = []
    for line in [*lines, "0::/"]:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0":
            root, names = _GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = _GROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = root / ("" if ".." in path.split("/") else path.lstrip("/"))
        for folder in (own, *own.parents):
            if folder.is_relative_to(root):
                yield folder, *names


def _numbers(path: Path) -> dict[str, int]:
    """Names and the numbers after them, a line each."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
