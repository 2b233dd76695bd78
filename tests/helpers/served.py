"""A running service in this process, and plain HTTP to it."""

import asyncio
import contextlib
import http.client
import json
import threading

from kerasmlp.serving.server.http_server import listening
from kerasmlp.serving.server.limits import Limits


@contextlib.contextmanager
def service(models, *, host="127.0.0.1", grpc_port=None, allowed_hosts=(), photos=None, **limits):
    """Yields the port of a service in a thread, of one with gRPC both ports."""
    loop, started, ports = asyncio.new_event_loop(), threading.Event(), []

    async def run():
        how = {"allowed_hosts": allowed_hosts, "photos": photos, "grpc_port": grpc_port}
        async with listening(models, host, 0, Limits(**limits), **how) as (_, _, *urls):
            found = [int(url.rsplit(":", 1)[1]) for url in urls if url]
            ports.append(found if len(found) > 1 else found[0])
            started.set()
            while ports:
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    started.wait()
    yield ports[0]
    ports.clear()
    thread.join()
    loop.close()


def http_request(port, method, path, body=None, headers=None, timeout=60):
    """Returns status, decoded JSON and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers
    finally:
        connection.close()


def post(port, content, path="/v1/models/age:predict"):
    status, answer, _ = http_request(port, "POST", path, json.dumps(content))
    return status, answer
