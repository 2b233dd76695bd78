"""Connections that want too much: bounded, and nobody else pays for them."""

import asyncio
import contextlib
import json
import logging
import os
import resource
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp (extra `serve`)")
pytest.importorskip("orjson", reason="needs orjson (extra `serve`)")
from aiohttp import web

from kerasmlp.serving.server import connections as module
from kerasmlp.serving.server.bounded_log import OncePerKind, bounded_log
from kerasmlp.serving.server.connections import Connection, Connections
from kerasmlp.serving.server.fair_queue import FairQueue
from kerasmlp.serving.server.listener import Listener
from kerasmlp.serving.server.own_folder import own_folder
from kerasmlp.serving.server.turns import Turns

GOOD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@contextlib.asynccontextmanager
async def listening(most, answer=b"x"):
    """Yields the open connections and the port of a service that answers the same to all."""

    @web.middleware
    async def counted(request, handler):
        request.protocol.begins()
        try:
            return await handler(request)
        finally:
            request.protocol.ends()

    async def handle(_):
        return web.Response(body=answer)

    app = web.Application(middlewares=[counted])
    app.add_routes([web.get("/", handle)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    connections = Connections(most)
    made = lambda: Connection(connections, runner.server, access_log=None)  # noqa: E731
    listener = Listener(connections, made)
    _, port = listener.open("127.0.0.1", 0)
    yield connections, port
    listener.close()
    await runner.cleanup()
    listener.stop()


async def connect(port, address="127.0.0.1"):
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))


async def answered(client):
    reader, writer = client
    try:
        writer.write(GOOD)
        return (await asyncio.wait_for(reader.read(1 << 16), 5)).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 500 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_in_json(sent):
    async def ask():
        async with listening(10) as (_, port):
            reader, writer = await connect(port)
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            return answer

    head, _, body = asyncio.run(ask()).partition(b"\r\n\r\n")
    assert head.split()[1] == b"400" and b"application/json" in head
    (sentence,) = json.loads(body).values()
    assert sentence.startswith("the request must be HTTP. Received: ")
    assert len(sentence) < 200 and "\n" not in sentence


def test_who_has_most_gives_way():
    async def ask():
        async with listening(10) as (connections, port):
            crowd = [await connect(port, "127.0.0.2") for _ in range(10)]
            assert await answered(crowd[0])  # which is not idle for longest
            other = await connect(port, "127.0.0.3")
            assert await answered(other) and len(connections) == 10
            assert (await asyncio.wait_for(crowd[1][0].read(), 5)) == b""
            more = [await connect(port, "127.0.0.2") for _ in range(10)]
            await asyncio.sleep(0.1)
            assert await answered(other) and len(connections) == 10
            for _, writer in (*crowd, *more, other):
                writer.close()

    asyncio.run(ask())


def test_who_asks_on_more_than_half_of_the_places_gives_way_too():
    async def ask():
        async with listening(10) as (connections, port):
            crowd = [await connect(port, "127.0.0.2") for _ in range(10)]
            assert await answered(crowd[0])
            for one in connections._open:  # heads have come, and bodies never will
                one.begins()
            other = await connect(port, "127.0.0.3")
            assert await answered(other) and len(connections) == 10
            for one in connections._open:
                one.begins()
            assert connections.has_room("127.0.0.3") and not connections.has_room("127.0.0.2")
            for _, writer in (*crowd, other):
                writer.close()

    asyncio.run(ask())


def test_refusals_are_held_back_where_many_come(monkeypatch):
    monkeypatch.setattr(module, "_MANY", 2)
    monkeypatch.setattr(module, "_REFUSALS_PER_S", 100.0)

    async def ask():
        async with listening(10) as (connections, port):
            alone = await connect(port)
            assert await answered(alone)
            assert {connections.hold_s() for _ in range(20)} == {0.0}
            nonsense, honest = await connect(port), await connect(port)
            held = [connections.hold_s() for _ in range(20)]
            assert held == sorted(held) and 0 < held[0] < held[-1] <= 0.4
            nonsense[1].write(b"GARBAGE\r\n\r\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(nonsense[0].read(1), 0.1)
            assert await answered(honest)  # nobody else waits
            assert (await asyncio.wait_for(nonsense[0].read(), 5)).split()[1] == b"400"
            for _, writer in (alone, nonsense, honest):
                writer.close()

    asyncio.run(ask())


def test_at_the_limit_of_open_files_one_sentence_is_written(caplog):
    """And whoever comes once there is room is answered."""

    async def ask():
        async with listening(100) as (_, port):
            with bounded_log(asyncio.get_running_loop()):
                clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
                await asyncio.sleep(0.1)
                limits = resource.getrlimit(resource.RLIMIT_NOFILE)
                waiting = [socket.socket() for _ in range(20)]
                used = len(os.listdir("/proc/self/fd"))
                resource.setrlimit(resource.RLIMIT_NOFILE, (used, limits[1]))
                try:
                    for client in waiting:
                        client.connect(("127.0.0.1", port))
                    await asyncio.sleep(0.7)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                for client in clients:
                    client.close()
                assert await answered(await connect(port))
                for client in waiting:
                    client.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(ask())
    (record,) = caplog.records
    assert record.getMessage() == "no further connection can be taken: Too many open files"


def test_who_does_not_read_or_finish_must_leave(monkeypatch):
    monkeypatch.setattr(module, "_STUCK_S", 0.5)
    monkeypatch.setattr(module, "_HEAD_S", 0.5)

    async def ask():
        async with listening(10, bytes(20_000_000)) as (connections, port):
            _, never = await connect(port)
            never.transport.pause_reading()
            never.write(GOOD)
            _, slow = await connect(port)
            slow.write(GOOD[:10])
            idle = await connect(port)
            await asyncio.sleep(0.2)
            assert len(connections) == 3
            await asyncio.sleep(2.5)
            assert len(connections) == 1
            for writer in (never, slow, idle[1]):
                writer.close()

    asyncio.run(ask())


def test_answers_that_nobody_takes_are_bounded_together(monkeypatch):
    monkeypatch.setattr(module, "_MAX_UNSENT", 30_000_000)

    async def ask():
        async with listening(10, bytes(20_000_000)) as (connections, port):
            clients = [await connect(port) for _ in range(4)]
            for _, writer in clients:
                writer.transport.pause_reading()
                writer.write(GOOD)
            await asyncio.sleep(3.2)
            left = len(connections)
            for _, writer in clients:
                writer.close()
            return left

    assert asyncio.run(ask()) == 1


def test_a_kind_of_sentence_is_written_once_and_counted():
    once = OncePerKind(pause_s=0.0)
    record = logging.makeLogRecord({"msg": "from %s", "args": ("a",)})
    assert once.filter(record) and record.getMessage() == "from a"
    once._pause_s, kept = 3600.0, []
    for _ in range(5):
        kept.append(once.filter(logging.makeLogRecord({"msg": "from %s", "args": ("a",)})))
    once._pause_s = 0.0
    record = logging.makeLogRecord({"msg": "from %s", "args": ("b",)})
    record.exc_info = (ValueError, ValueError("two\nlines"), None)
    assert once.filter(record) and not any(kept)
    assert record.getMessage() == "from b: two lines (and 5 more like it)"
    assert record.exc_info is None


def test_turns_are_fair_whatever_the_items_cost():
    """Three clients that always wait for something get the same; one address counts once."""
    queue, given = FairQueue(), {}
    costs = {("a", 1): 1, ("b", 1): 1000, ("c", 1): 50, ("c", 2): 50}
    for client in costs:
        queue.push(client, client)
    for _ in range(20_000):
        client, _ = queue.in_turn()[0]
        queue.charge(client, costs[client])
        given[client] = given.get(client, 0) + costs[client]
    assert given[("a", 1)] == pytest.approx(given[("b", 1)], rel=0.1)
    assert given[("c", 1)] == pytest.approx(given[("c", 2)], rel=0.01)
    assert given[("c", 1)] + given[("c", 2)] == pytest.approx(given[("a", 1)], rel=0.1)


def test_who_comes_anew_has_no_credit():
    queue = FairQueue()
    queue.push(("a", 1), "first")
    for _ in range(10):
        queue.charge(("a", 1), 100)
    queue.push(("b", 1), "second")
    order = []
    for _ in range(20):
        client, item = queue.in_turn()[0]
        queue.charge(client, 100)
        order.append(item)
    assert 9 <= order.count("first") <= 11


@pytest.mark.parametrize(("heavy", "small"), [(("a", 1), ("b", 1)), (("a", 1), ("a", 2))])
def test_a_debt_outlasts_its_answer(heavy, small):
    """Who is answered and asks again at once does not come before those who got less."""
    queue = FairQueue()
    queue.push(heavy, "first")
    queue.push(small, "other")
    queue.charge(heavy, 5)
    queue.charge(small, 1)
    queue.drop(heavy, "first")
    queue.push(heavy, "again")
    assert [item for _, item in queue.in_turn()] == ["other", "again"]


def test_debts_are_few():
    queue = FairQueue()
    for number in range(5000):
        for client in ((str(number), 1), ("one", number)):
            queue.push(client, "item")
            queue.charge(client, 5000 - number)
            queue.drop(client, "item")
        queue.push(("one", "waits"), "item")
    assert len(queue._owed) <= 1024 and len(queue._addresses["one"].owed) <= 1024


def test_what_a_killed_process_left_is_private(tmp_path):
    """As the page sets its umask before it makes the folder."""
    code = (
        "import os, signal; from kerasmlp.serving.server.own_folder import own_folder\n"
        "os.umask(0o077)\n"
        "with own_folder('kerasmlp-demo-') as folder:\n"
        "    (folder / 'photo.jpg').write_text('a face')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], env=environment, cwd=root).returncode == -9
    (left,) = tmp_path.iterdir()
    (photo,) = left.iterdir()
    assert left.stat().st_mode & 0o777 == 0o700 and photo.stat().st_mode & 0o777 == 0o600


def test_an_address_has_its_share_of_the_room_only():
    async def ask():
        turns, begun, end = Turns(0.5), [], asyncio.Event()

        async def work(client):
            async with turns.turn(client, share=0.4, cost=1):
                begun.append(client)
                await end.wait()

        clients = [("a", 1), ("a", 2), ("b", 1), ("c", 1)]
        tasks = [asyncio.create_task(work(client)) for client in clients]
        await asyncio.sleep(0.01)
        first = list(begun)
        tasks[1].cancel()
        end.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        return first, begun

    first, begun = asyncio.run(ask())
    assert first == [("a", 1), ("b", 1)] and begun == [*first, ("c", 1)]


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = Path(tempfile.mkdtemp(prefix="kerasmlp-demo-"))
    (left / "photo.jpg").write_text("a face")
    with own_folder("kerasmlp-demo-") as first:
        assert not left.exists()
        with own_folder("kerasmlp-demo-") as second:
            assert first.is_dir() and second.is_dir() and first != second
    assert not list(tmp_path.iterdir())
