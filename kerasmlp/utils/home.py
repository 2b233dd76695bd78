"""A place for what libraries keep in the home folder, where there is none that can be written."""

import os
import sys
import tempfile

_CACHES = {"MPLCONFIGDIR": "matplotlib", "KERAS_HOME": "keras"}
_kept: list[tempfile.TemporaryDirectory] = []


def require_caches() -> None:
    """Sends Matplotlib and Keras to a temporary folder if the home folder is none for them.

    They would print pages about it, or take a folder in /tmp by a name that
    anybody may have made. Processes that this one starts use the same; it
    goes with this process.

    Example:

    >>> require_caches()
    >>> os.access(os.environ.get("KERAS_HOME", os.path.expanduser("~")), os.W_OK)
    True
    """
    missing = [name for name in _CACHES if name not in os.environ]
    home = os.path.expanduser("~")
    if not missing or os.access(home, os.W_OK | os.X_OK):
        return
    folder = tempfile.TemporaryDirectory(prefix="kerasmlp-home-")
    _kept.append(folder)
    for name in missing:
        os.environ[name] = os.path.join(folder.name, _CACHES[name])
        os.mkdir(os.environ[name])
    why = "cannot be written" if os.path.isdir(home) else "is not there"
    print(
        f"note: the home folder `{home}` {why}: libraries keep their caches in {folder.name}, "
        "for this time only",
        file=sys.stderr,
    )
