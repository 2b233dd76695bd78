"""A service on a port, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping

from aiohttp import web

from kerasmlp.serving.address import check_port, reject_address
from kerasmlp.serving.http_service import HttpService
from kerasmlp.serving.limits import Limits
from kerasmlp.serving.served_models import ServedModel

_KEPT_S = 75  # an idle connection


def _without_traceback(record: logging.LogRecord) -> bool:
    # Of what is no HTTP, such as a port scan; faults of handlers are told by the service itself.
    if record.exc_info and record.exc_info[1] is not None:
        text = " ".join(str(record.exc_info[1]).split())[:100]
        record.msg, record.args = f"{record.getMessage()}: {text}", ()
    record.exc_info = record.exc_text = None
    return True


async def serve(
    models: Mapping[str, ServedModel],
    *,
    host: str,
    port: int,
    limits: Limits,
    started: Callable[[str], None],
) -> None:
    """Serves until SIGTERM or SIGINT; a second one ends it at once.

    On the first, `/readyz` says so, and those connections that are kept get
    `Connection: close` with their next answer; after `drain_s` none is taken
    any more, and every request that was read is answered.

    Args:
        models: As of `load_models`.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        limits: Of requests.
        started: Called with the URL once it listens.

    Raises:
        InputError: if it cannot listen there.
    """
    check_port(port)
    logging.getLogger("aiohttp.server").addFilter(_without_traceback)
    service = HttpService(models, limits)
    # A small compressed body may hold gigabytes: it is refused, not unpacked.
    runner = web.AppRunner(
        service.app(),
        access_log=None,
        auto_decompress=False,
        handler_cancellation=True,
        keepalive_timeout=_KEPT_S,
        shutdown_timeout=2 * limits.timeout_s,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            reject_address(error, host, port)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        host, port = runner.addresses[0][:2]
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await stop.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        service.stopping = True
        await asyncio.sleep(limits.drain_s)
        await site.stop()
    finally:
        await runner.cleanup()
