"""How much memory there is for this process."""

import os
from pathlib import Path

_SYSTEM, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


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
    """What the limit of a container leaves; files that are cached make room."""
    try:
        most = int((_GROUP / "memory.max").read_text())
        used = int((_GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no limit, or told otherwise
        return None
    return max(most - used + _numbers(_GROUP / "memory.stat").get("inactive_file", 0), 0)


def _numbers(path: Path) -> dict[str, int]:
    """Names and the numbers after them, a line each."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
