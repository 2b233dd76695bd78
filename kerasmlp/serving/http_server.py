"""A service on a port, until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping

from aiohttp import web

from kerasmlp.checks import reject
from kerasmlp.serving.http_service import HttpService
from kerasmlp.serving.limits import Limits
from kerasmlp.serving.served_models import ServedModel

_KEPT_S = 75  # an idle connection


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
        except (OSError, OverflowError) as error:
            reject("port", f"must be free on {host} ({error})", port)
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
