"""A service on a port, until it is told to stop."""

import asyncio
import contextlib
import ipaddress
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from typing import Any

from aiohttp import web

from kerasmlp.serving.server.address import LOCAL, in_url, sayable_address
from kerasmlp.serving.server.bounded_log import bounded_log
from kerasmlp.serving.server.connections import KEPT_S, Connection, Connections
from kerasmlp.serving.server.http_service import HttpService
from kerasmlp.serving.server.limits import Limits
from kerasmlp.serving.server.listener import Listener
from kerasmlp.serving.server.model_service import ModelService
from kerasmlp.serving.server.open_inference_paths import OpenInferencePaths
from kerasmlp.serving.server.openapi import openapi
from kerasmlp.serving.server.photo_paths import PhotoPaths
from kerasmlp.serving.server.photo_process import PhotoProcess
from kerasmlp.serving.server.rest_answers import JsonAnswer
from kerasmlp.serving.server.served_models import ServedModel
from kerasmlp.serving.server.version_watcher import VersionWatcher

_SWITCH_S = 0.0005  # until a thread that decodes gives way to the one that answers
_OTHER_FILES = 128  # that the process has open beside its connections


async def serve(
    models: Mapping[str, ServedModel],
    *,
    limits: Limits,
    started: Callable[[str, str | None], None],
    watcher: VersionWatcher | None = None,
    poll_s: float = 2.0,
    **address: Any,
) -> None:
    """Serves until SIGTERM or SIGINT; a second one ends it at once.

    On the first, `/readyz` says so, and those connections that are kept get
    `Connection: close` with their next answer; after `drain_s` none is taken
    any more, and every request that was read is answered.

    Args:
        models: As of `load_models`.
        limits: Of requests.
        started: Called once it listens, with the URL and where gRPC does.
        watcher: Takes up new versions of the models; None for nobody.
        poll_s: How often it looks.
        address: `host`, `port`, `grpc_port`, `allowed_hosts` and `photos` of `listening`.

    Raises:
        InputError: if it cannot listen there.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    sys.setswitchinterval(_SWITCH_S)
    with bounded_log(loop):
        async with listening(models, limits=limits, **address) as (service, listener, *urls):
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
            started(*urls)
            watching = watcher and loop.create_task(watcher.watch(poll_s))
            await stop.wait()
            if watching:
                watching.cancel()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            service.models.stopping = True
            await asyncio.sleep(limits.drain_s)
            listener.close()


@contextlib.asynccontextmanager
async def listening(
    models: Mapping[str, ServedModel],
    host: str,
    port: int,
    limits: Limits,
    allowed_hosts: Collection[str] = (),
    photos: PhotoProcess | None = None,
    grpc_port: int | None = None,
) -> AsyncIterator[tuple[HttpService, Listener, str, str | None]]:
    """Yields the service, what takes its connections, its URL, and where gRPC listens.

    Afterwards whatever was read is answered.

    Args:
        models: As of `load_models`.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        limits: Of requests.
        allowed_hosts: Names of this server beside `localhost`. At an address
            of this machine alone, requests under others are refused; at
            others, if some are named.
        photos: Who looks at photos; None for nobody.
        grpc_port: Port for gRPC; 0 takes a free one, None is without.
    """
    most = _room_for(limits.max_connections, ports=1 if grpc_port is None else 2)
    connections = Connections(most)
    how = {"access_log": None, "auto_decompress": False, "keepalive_timeout": KEPT_S}
    service = HttpService(ModelService(models, limits))
    # A small compressed body may hold gigabytes: it is refused, not unpacked.
    app = service.app(further_paths(service, photos))
    runner = web.AppRunner(
        app, handler_cancellation=True, shutdown_timeout=2 * limits.timeout_s, **how
    )
    await runner.setup()
    listener = Listener(connections, lambda: Connection(connections, runner.server, **how))
    try:
        with sayable_address(host, port):
            address, port = listener.open(host, port)
        named = in_url(address)
        if allowed_hosts or ipaddress.ip_address(address).is_loopback:
            service.hosts = {name.lower() for name in (host, named, *LOCAL, *allowed_hosts)}
        async with contextlib.AsyncExitStack() as stack:
            grpc_address = None
            if grpc_port is not None:
                from kerasmlp.serving.server.grpc_service import grpc_listening

                beside = grpc_listening(service.models, host, grpc_port, most)
                grpc_address = await stack.enter_async_context(beside)
            yield service, listener, f"http://{named}:{port}", grpc_address
    finally:
        listener.close()
        await runner.cleanup()
        listener.stop()


def further_paths(service: HttpService, photos: PhotoProcess | None) -> Iterator[web.RouteDef]:
    """Those beside TensorFlow Serving's."""

    async def describe(request: web.Request) -> web.Response:
        return JsonAnswer(openapi(photos=photos is not None))

    yield web.get("/openapi.json", describe)
    yield from OpenInferencePaths(service).routes()
    if photos is not None:
        yield from PhotoPaths(service, photos).routes()


def _room_for(connections: int, ports: int) -> int:
    """How many of them each port can have, after this process asked for as many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ports * connections + _OTHER_FILES
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(connections, (soft - _OTHER_FILES) // ports), 1)
