"""The files of an export, copied to where nobody else can change them between check and use."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kerasmlp.checks import reject_file
from kerasmlp.serving.own_folder import own_folder

GRAPH, DESCRIPTION = "saved_model.pb", "assets/model.json"
INDEX, WEIGHTS = "variables/variables.index", "variables/variables.data-00000-of-00001"
_MAX_BYTES = {GRAPH: 1 << 26, DESCRIPTION: 1 << 24, INDEX: 1 << 26}
"""The graph of the paper's age network has 400 kB."""
OTHERS = "(--trust takes a model of others, which may read and write this machine's files)"


@contextlib.contextmanager
def private_copy(version: str | os.PathLike) -> Iterator[Path]:
    """Yields a folder with the four files of a version, and nothing else that lies beside them.

    Links and pipes are not followed, and nothing is read that would not fit.

    Args:
        version: Folder of a SavedModel.

    Raises:
        InputError: if a file is missing, too large, or none.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     os.mkfifo(f"{folder}/saved_model.pb")
    ...     with private_copy(folder):
    ...         pass
    Traceback (most recent call last):
        ...
    kerasmlp.checks.InputError: `.../saved_model.pb` must be a file. Received: something else
    """
    with own_folder("kerasmlp-model-") as folder:
        for file in (GRAPH, DESCRIPTION, INDEX, WEIGHTS):
            target = folder / file
            target.parent.mkdir(exist_ok=True)
            with _opened(Path(version), file) as source, open(target, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
        yield folder


@contextlib.contextmanager
def _opened(version: Path, file: str) -> Iterator[BinaryIO]:
    path = version / file
    with contextlib.ExitStack() as opened:
        try:
            descriptor = os.open(version, os.O_RDONLY | os.O_DIRECTORY)
            for part in Path(file).parts:
                opened.callback(os.close, descriptor)
                flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
                descriptor = os.open(part, flags, dir_fd=descriptor)
        except FileNotFoundError:
            reject_file(version, "must be a complete SavedModel", f"one without {file}")
        except OSError as error:
            is_link = error.errno in (errno.ELOOP, errno.ENOTDIR)
            reject_file(path, f"must be a file {OTHERS}", "a link" if is_link else str(error))
        source = opened.enter_context(os.fdopen(descriptor, "rb", closefd=True))
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            reject_file(path, "must be a file", "something else")
        if status.st_size > _MAX_BYTES.get(file, status.st_size):
            reject_file(path, f"must have at most {_MAX_BYTES[file]} bytes", f"{status.st_size}")
        yield source
