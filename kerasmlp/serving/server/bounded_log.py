"""Sentences of a service about others: one of each kind in ten seconds, without tracebacks."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator

_PAUSE_S = 10.0
_LOGGERS = ("aiohttp.server", "asyncio", "grpc._cython.cygrpc", "kerasmlp.serving")


class OncePerKind(logging.Filter):
    """Lets a kind of record pass once, then only counts it for a while.

    Its kind is the text before anything is put into it, so there are few.

    Example:

    >>> once, seen = OncePerKind(pause_s=3600), []
    >>> for number in range(3):
    ...     seen.append(once.filter(logging.makeLogRecord({"msg": "from %s", "args": (number,)})))
    >>> seen
    [True, False, False]
    """

    def __init__(self, pause_s: float = _PAUSE_S):
        super().__init__()
        self._pause_s = pause_s
        self._kinds: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = str(record.msg), time.monotonic()
        since, more = self._kinds.get(kind, (-self._pause_s, 0))
        if now - since < self._pause_s:
            self._kinds[kind] = since, more + 1
            return False
        self._kinds[kind] = now, 0
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {' '.join(str(record.exc_info[1]).split())[:100]}"
        if more:
            text += f" (and {more} more like it)"
        record.msg, record.args, record.exc_info, record.exc_text = text, (), None, None
        return True


@contextlib.contextmanager
def bounded_log(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Bounds what is written while a service runs."""

    def tell(_: asyncio.AbstractEventLoop, context: dict) -> None:
        came = type(context.get("exception")).__name__
        logging.getLogger("kerasmlp.serving").error("%s: %s", context.get("message"), came)

    once = OncePerKind()
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(once)
    loop.set_exception_handler(tell)
    try:
        yield
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(once)
        loop.set_exception_handler(None)
