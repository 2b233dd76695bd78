"""The HTTP service among clients that mean no good, or want more than their share.

    python tests/benchmarks/serving_hostile.py [--seconds 60] [--addresses one] [--model DIR_OR_RUN]

First 32 honest connections ask single rows alone; then for as long among 16
heavy ones (MC dropout of 256 rows, 512 samples, and 1,024 rows at once), 200
idle, 50 that ask for 64 rows again and again and never read an answer, and 500
hostile ones: bodies of one byte at a time, garbage, sizes that lie, foreign names, too large
heads, and those that reset. Each kind comes from addresses of its own
(127.0.x.y), or, with `--addresses one`, all from 127.0.0.1.

Every honest answer is compared with the one that was given when nobody else
was there, those of the heavy connections with what they got alone, to
rounding. The honest ones are one process, the others another, the server a
third; all run on all cores. The
last line is one JSON object: `share` of the throughput alone, `p99_ms`,
`wrong`, `lost`, memory by time and its growth, what the server wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import random
import re
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from serving import agree, bodies, make_model, over_time, server

HONEST, HEAVY, IDLE, NEVER, HOSTILE = 32, 16, 200, 50, 500
PAUSE_S = 1.0  # of a hostile connection between two tries


class Client:
    """One connection from an address; plain reading, without a task for each part."""

    def __init__(self, port: int, address: str):
        self._port, self._address = port, address
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._port, local_addr=(self._address, 0)
            )
        return self._reader, self._writer

    async def ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        reader, writer = await self.open()
        writer.write(request(path, body))
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(re.search(rb"content-length: (\d+)", head, re.I)[1])
        return int(head[9:12]), await reader.readexactly(size)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def request(path: str, body: bytes, *, host: str = "localhost", size: int | None = None) -> bytes:
    size = len(body) if size is None else size
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + body


def heavy_bodies(width: int) -> list[bytes]:
    x = np.random.default_rng(1).standard_normal((1024, width), np.float32).round(3)
    rows = [[float(v) for v in row] for row in x.tolist()]
    sampled = {"embedding": rows[:256], "num_samples": 512, "seed": 3}
    return [
        json.dumps({"signature_name": "serve_mc", "inputs": sampled}).encode(),
        json.dumps({"inputs": {"embedding": rows}}).encode(),
    ]


def unread_body(width: int) -> bytes:
    x = np.random.default_rng(2).standard_normal((64, width)).round(1)
    return json.dumps({"inputs": {"embedding": x.tolist()}}).encode()


class Crowd:
    """Everybody; what happened to whom is counted."""

    def __init__(self, port: int, path: str, width: int, one_address: bool):
        self.port, self.path, self.one_address = port, path, one_address
        self.single = bodies("deterministic", 1, width)
        self.heavy = heavy_bodies(width)
        self.unread = unread_body(width)
        self.expected: list[bytes] = []
        self.heavy_expected: list[bytes] = []
        self.seconds: list[float] = []
        self.counts: Counter[str] = Counter()
        self.first_wrong = ""
        self.end = 0.0

    def address(self, kind: int, number: int) -> str:
        return "127.0.0.1" if self.one_address else f"127.0.{kind}.{1 + number % 200}"

    async def learn(self) -> None:
        client = Client(self.port, "127.0.0.1")
        self.expected = [(await client.ask(self.path, body))[1] for body in self.single]
        self.heavy_expected = [(await client.ask(self.path, body))[1] for body in self.heavy]
        client.close()

    async def honest(self, number: int) -> None:
        client = Client(self.port, self.address(1, number))
        while time.perf_counter() < self.end:
            number = (number + 1) % len(self.single)
            started = time.perf_counter()
            try:
                status, answer = await client.ask(self.path, self.single[number])
            except (OSError, EOFError):
                self.counts["lost"] += 1
                client.close()
                continue
            self.seconds.append(time.perf_counter() - started)
            if status != 200 or answer != self.expected[number]:
                self.counts["wrong"] += 1
                self.first_wrong = self.first_wrong or answer[:200].decode()
        client.close()

    async def greedy(self, number: int) -> None:
        client, which = Client(self.port, self.address(2, number)), number % 2
        while time.perf_counter() < self.end:
            try:
                status, answer = await client.ask(self.path, self.heavy[which])
            except (OSError, EOFError):
                self.counts["heavy lost"] += 1
                client.close()
                continue
            self.counts[f"heavy {status}"] += 1
            if status in (503, 504):
                await asyncio.sleep(1)
            elif status != 200 or not await asyncio.to_thread(
                agree, answer, self.heavy_expected[which]
            ):
                self.counts["heavy wrong"] += 1

    async def idle(self, number: int) -> None:
        client = Client(self.port, self.address(3, number))
        with contextlib.suppress(OSError):
            reader, _ = await client.open()
            await reader.read(1)
            self.counts["idle ended"] += 1
        client.close()

    async def never_reading(self, number: int) -> None:
        client = Client(self.port, self.address(4, number))
        while True:
            with contextlib.suppress(OSError):
                _, writer = await client.open()
                writer.transport.pause_reading()
                while not writer.is_closing():
                    writer.write(request(self.path, self.unread))
                    await writer.drain()
                    self.counts["never reading asked"] += 1
                self.counts["never reading ended"] += 1
            client.close()
            await asyncio.sleep(PAUSE_S)

    async def hostile(self, number: int) -> None:
        rng = random.Random(number)
        client = Client(self.port, self.address(5, number))
        await asyncio.sleep(PAUSE_S * rng.random())
        while True:
            kind = number % 6
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await client.open()
                if kind == 0:  # one byte at a time
                    writer.write(request(self.path, b"{", size=5000))
                    while not reader.at_eof():
                        await asyncio.sleep(PAUSE_S)
                        writer.write(b"1")
                elif kind == 5:
                    writer.write(request(self.path, b"{", size=5000))
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(1, 13, linger)
                else:
                    writer.write(
                        {
                            1: lambda: rng.randbytes(300) + b"\r\n\r\n",
                            2: lambda: request(self.path, b"{", size=1 << 40),
                            3: lambda: request(self.path, self.single[0], host="evil.example"),
                            4: lambda: b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 20_000,
                        }[kind]()
                    )
                    answer = await asyncio.wait_for(reader.read(1000), 20)
                    self.counts[f"hostile {answer[9:12].decode()}"] += 1
            client.close()
            await asyncio.sleep(PAUSE_S)

    async def honest_ones(self, seconds: float) -> dict:
        self.seconds, self.counts = [], Counter()
        self.end = time.perf_counter() + seconds
        await asyncio.gather(*(self.honest(i) for i in range(HONEST)))
        centiles = statistics.quantiles(self.seconds, n=1000)
        return {
            "requests_per_s": round(len(self.seconds) / seconds, 1),
            "p50_ms": round(centiles[499] * 1e3, 1),
            "p99_ms": round(centiles[989] * 1e3, 1),
            "max_ms": round(max(self.seconds) * 1e3, 1),
            "wrong": self.counts["wrong"],
            "lost": self.counts["lost"],
        }

    async def others(self, seconds: float) -> Counter[str]:
        """What happened to them in so many seconds."""
        self.end = time.perf_counter() + seconds
        tasks = {
            asyncio.create_task(what(i))
            for what, many in (
                (self.idle, IDLE),
                (self.never_reading, NEVER),
                (self.hostile, HOSTILE),
                (self.greedy, HEAVY),
            )
            for i in range(many)
        }
        await asyncio.sleep(seconds)
        while tasks:  # one that is told while it gets an answer may go on
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=1)
        return self.counts


def others_alone(crowd: Crowd, seconds: float) -> Counter[str]:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # the log is the server's
    return asyncio.run(crowd.others(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="alone, and among the others")
    parser.add_argument("--addresses", choices=("many", "one"), default="many")
    parser.add_argument("--model", type=Path, help="folder of versions or run")
    parser.add_argument("--width", type=int, default=512, help="of its embeddings")
    args = parser.parse_args()
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
        model = args.model or make_model(Path(folder) / "run")
        os.dup2(log.fileno(), 2)  # what the server writes
        with server(model, cores) as (_, port, name, memory):
            path = f"/v1/models/{name}:predict"
            crowd = Crowd(port, path, args.width, args.addresses == "one")
            asyncio.run(crowd.learn())
            alone = asyncio.run(crowd.honest_ones(min(args.seconds, 20)))
            print(alone, flush=True)
            first = len(memory)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                counted = pool.submit(others_alone, crowd, args.seconds + 1)
                time.sleep(1)  # until they are there
                among = asyncio.run(crowd.honest_ones(args.seconds))
                others = counted.result()
            among["wrong"] += others["heavy wrong"]
            kept = over_time(memory[first:])
            status, _ = asyncio.run(Client(port, "127.0.0.1").ask(path, crowd.single[0]))
        log.seek(0)
        written = log.read().splitlines()
    if crowd.first_wrong:
        print(f"first wrong answer: {crowd.first_wrong}")
    print(*written, sep="\n")
    share = among["requests_per_s"] / alone["requests_per_s"]
    good = share >= 0.5 and among["p99_ms"] < 1000 and not among["wrong"] + among["lost"]
    report = {"seconds": args.seconds, "addresses": args.addresses, "cores": len(cores)}
    report |= {"alone": alone, "among": among, "others": dict(sorted(others.items()))}
    report |= {"share": round(share, 2), "afterwards": status}
    report |= {"log_lines": len(written), **kept, "good": good}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
