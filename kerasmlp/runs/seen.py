"""Which rows a run has learned from, so that no later test is on one of them.

A row is known again in half and in single precision. The embedding of another copy of
a photo, or by another version of the embedder's runtime, is another row.
"""

import io

import numpy as np

from kerasmlp.data.row_hashes import row_hashes
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import atomic_path

FILE = "seen.npy"


def count_common(embeddings: np.ndarray, others: np.ndarray) -> int:
    """How many rows are also among others.

    Example:

    >>> count_common(np.array([[1.0], [2.0], [1.0]]), np.array([[1.0], [3.0]]))
    2
    """
    return int(np.isin(row_hashes(embeddings), row_hashes(others)).sum())


def save_seen(run: RunFolder, embeddings: np.ndarray, init: RunFolder | None) -> None:
    """Writes the hashes of a run's rows, and of those that its first weights have learned from."""
    hashes = row_hashes(embeddings)
    if init is not None:
        hashes = np.union1d(hashes, load_seen(init))
    with atomic_path(run / FILE) as temporary, open(temporary, "wb") as file:
        np.save(file, np.unique(hashes), allow_pickle=False)


def count_seen(run: RunFolder, embeddings: np.ndarray) -> int | None:
    """How many of the rows a run has learned from; None where it does not tell.

    Raises:
        InputError: if its file is damaged.
    """
    if run.read_bytes(FILE) is None:
        return None
    return int(np.isin(row_hashes(embeddings), load_seen(run)).sum())


def load_seen(run: RunFolder) -> np.ndarray:
    """The hashes that a run holds; none where its weights come from the original's code.

    Raises:
        InputError: if the file is absent or damaged.
    """
    path = run / FILE
    content = run.read_bytes(FILE)
    if content is None:
        if run.config().get("data_digest") is None:
            return np.empty(0, np.uint64)
        reject_file(path, "must tell what the run has learned from", "no such file")
    try:
        # The header is held against the size of the file: NumPy would believe any.
        file = io.BytesIO(content)
        good = np.lib.format.read_magic(file) == (1, 0)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        good = good and dtype == np.uint64 and shape == ((len(content) - file.tell()) // 8,)
        hashes = np.frombuffer(content, np.uint64, offset=file.tell())
        good = good and bool((hashes[1:] > hashes[:-1]).all())
    except Exception:  # whatever NumPy meets in a header that is not its own
        good = False
    if not good:
        reject_file(path, "must hold one 64-bit number per row, rising", "a damaged file")
    return hashes
