"""By which a row is known again."""

import hashlib

import numpy as np

from kerasmlp.data.stores.streamed_rows import AnyRows, blocks_of

_LARGE = 2048


def row_hashes(embeddings: AnyRows, *, half: bool = True) -> np.ndarray:
    """A hash of each embedding, the same in half and in single precision.

    Args:
        embeddings: `(rows, width)`.
        half: Whether rows are the same that half precision cannot tell apart; columns of a
            table, whose numbers may be large, are compared in single precision. Rows with a
            number above 2048 are so in any case: half precision has no odd numbers there.

    Returns:
        `(rows,)` uint64; two of a million different rows agree with a probability of 3e-8.

    Example:

    >>> rows = np.array([[0.1, 0.2], [0.3, 0.4]], "float16")
    >>> bool((row_hashes(rows) == row_hashes(rows.astype("float32"))).all())
    True
    >>> large = np.array([[70_000.0], [80_000.0]])
    >>> len(set(row_hashes(large).tolist()))
    2
    """
    digests = []
    for _, block in blocks_of(embeddings):
        single = np.ascontiguousarray(block, np.float32)
        rows = list(single)
        if half:
            with np.errstate(over="ignore"):
                halves = single.astype(np.float16)
            large = np.abs(single).max(axis=1, initial=0) > _LARGE
            rows = [
                s if of_table else h for s, h, of_table in zip(rows, halves, large, strict=True)
            ]
        digests.append(b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows))
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
