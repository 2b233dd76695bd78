"""The files of an export, copied to where nobody else can change them between check and use."""

import contextlib
import errno
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kerasmlp.serving.server.own_folder import own_folder
from kerasmlp.utils.checks import reject_file

GRAPH, DESCRIPTION = "saved_model.pb", "assets/model.json"
REFERENCE = "assets.extra/reference.json"
"""Which exports of older versions, and of runs without one, lack."""
VARIABLES = "variables/variables"
INDEX, WEIGHTS = f"{VARIABLES}.index", f"{VARIABLES}.data-00000-of-00001"
_MAX_BYTES = {
    GRAPH: 1 << 26, DESCRIPTION: 1 << 24, INDEX: 1 << 26, WEIGHTS: 1 << 32, REFERENCE: 1 << 22
}  # fmt: skip
"""The graph of the paper's age network has 400 kB."""
_MAX_NAMES = 1 << 24  # bytes of the texts beside the weights, whose size no index names
OTHERS = "(--trust takes a model of others, which may read and write this machine's files)"


@contextlib.contextmanager
def private_copy(version: str | os.PathLike) -> Iterator[Path]:
    """Yields a folder with the files of a version, and nothing else that lies beside them.

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
    kerasmlp.utils.checks.InputError: `.../saved_model.pb` must be a file. Received: something else
    """
    with own_folder("kerasmlp-model-") as folder:
        there = os.path.lexists(Path(version) / REFERENCE)
        for file in (GRAPH, DESCRIPTION, INDEX, WEIGHTS, *[REFERENCE] * there):
            target = folder / file
            target.parent.mkdir(exist_ok=True)
            with _opened(Path(version), file) as source, open(target, "wb") as copy:
                size = os.fstat(source.fileno()).st_size
                if file == WEIGHTS:
                    _check_size(Path(version), folder, size)
                # No further: it may grow meanwhile.
                while size and (part := source.read(min(size, 1 << 20))):
                    size -= copy.write(part)
                if size:
                    reject_file(Path(version) / file, "must stay as it is", "one cut off meanwhile")
        yield folder


def _check_size(version: Path, folder: Path, size: int) -> None:
    """Rejects weights of another size than their index names: memory for them is taken first."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(os.fspath(folder / VARIABLES))
    except Exception as error:  # an altered file may fail anywhere, in any way
        came = " ".join(str(error).split()).replace(os.fspath(folder), os.fspath(version))
        reject_file(version, "must be a complete SavedModel", came[:200])
    kinds = reader.get_variable_to_dtype_map()
    shapes = reader.get_variable_to_shape_map()
    named = sum(math.prod(shapes[k]) * max(kinds[k].size, 1) for k in shapes)
    if named > size:
        came = "weights that are larger than their file"
        reject_file(version, "must be a complete SavedModel", came)
    if size > named + _MAX_NAMES:
        requirement = f"must have the {named} bytes that {INDEX} names"
        reject_file(version / WEIGHTS, requirement, f"{size}")


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
        if status.st_size > _MAX_BYTES[file]:
            reject_file(path, f"must have at most {_MAX_BYTES[file]} bytes", f"{status.st_size}")
        yield source
