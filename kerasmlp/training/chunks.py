"""Into how many chunks of steps an epoch is cut, each of them one call of a compiled step."""

import math

_STEPS_PER_CHUNK = 32
_ROWS_PER_CHUNK = 8192  # bounds the memory


def chunks_of(steps: int, batch_size: int) -> tuple[int, int]:
    """Into how many chunks of how many steps an epoch is cut; the last one may be shorter.

    Example:

    >>> chunks_of(20, 128), chunks_of(106, 128), chunks_of(106, 4096)
    ((1, 20), (4, 27), (53, 2))
    """
    most = min(_STEPS_PER_CHUNK, max(_ROWS_PER_CHUNK // batch_size, 1))
    number = math.ceil(steps / most)
    return number, math.ceil(steps / number)
