"""The HTTP service under load: one core serves, a second process asks from another.

    python tests/benchmarks/serving.py [--seconds 60] [--connections 32] [--model DIR_OR_RUN]

Requests of one row and of 64 rows, deterministic and MC dropout with 64
samples, with and without computing concurrent requests together; each for so
many seconds, over kept connections, each of which asks again as soon as it is
answered. By default the paper's age network with random weights. MC requests
have one seed, as those of a client that leaves it at its default, and then,
`mc-seeds`, one each.

Every answer is compared with the one that the same request got alone:
deterministic ones byte by byte, MC ones to 1e-5. `lost` are requests without
an answer, `wrong` those with another status or another answer. Memory is the
server's resident set, every second; `growth_mib` is the mean of the last fifth
of a measurement over that of its second fifth. `cpu_ms_per_answer` is the
server's and, unlike requests per second, hardly depends on what else runs;
`cpu_ratios` are those of it. Both servers stay up, and each measurement with
batching is followed by the same without.
`pause_s` is by how much this process was kept from looking every second: more
than one or two says that the machine stood still. The last line is one JSON
object; `batching_ratio` is the lower one of the deterministic and the MC
requests with one row and one seed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

SAMPLES, DIFFERENT = 64, 32
KINDS = ("deterministic", "mc", "mc-seeds")


def make_model(folder: Path, seed: int = 0) -> Path:
    """A run of the paper's age network with random weights, made in a process of its own."""
    code = (
        "import sys\n"
        "from kerasmlp.utils.tensorflow_import import import_tensorflow\n"
        "import_tensorflow()\n"
        "from kerasmlp import ResidualMLP\n"
        "from kerasmlp.models.presets import PRESETS, Recipe\n"
        "from kerasmlp.runs.run_folder import RunFolder\n"
        "from kerasmlp.data.targets import age_target\n"
        "target = age_target('age_years', 'adience', by_years=True)\n"
        "network = PRESETS['paper-age'].network(512)\n"
        "model = ResidualMLP(num_classes=target.num_classes, seed=int(sys.argv[2]), **network)\n"
        "config = {'target': {**vars(target), 'class_names': list(target.class_names)},\n"
        "    'recipe': Recipe().to_config(), 'width': 512, 'embedder': 'none',\n"
        "    'embedder_sha256': '0' * 64, 'normalized': True, 'data_digest': 'none'}\n"
        "run = RunFolder(sys.argv[1])\n"
        "with run.working(config, resume=False, force=False):\n"
        "    model.save(run / 'model.keras'); run.finish({'temperature': 1.0})\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(folder), str(seed)]
    subprocess.run(command, check=True, env=environment)
    return folder


def bodies(kind: str, rows: int, width: int) -> list[bytes]:
    x = np.random.default_rng(0).standard_normal((DIFFERENT, rows, width), np.float32)
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    made = []
    for number, batch in enumerate(x):
        request = {"inputs": {"embedding": batch.tolist()}}
        if kind != "deterministic":
            seed = number if kind == "mc-seeds" else 0
            request["inputs"] |= {"num_samples": SAMPLES, "seed": seed}
            request["signature_name"] = "serve_mc"
        made.append(json.dumps(request).encode())
    return made


class Connection:
    def __init__(self, port: int, path: str):
        self._port, self._path, self._writer = port, path, None

    async def ask(self, body: bytes, more: str = "") -> tuple[int, bytes]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\n{more}"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answered = await self._reader.readuntil(b"\r\n\r\n")
        size = int(re.search(rb"\r\ncontent-length: (\d+)", answered, re.I)[1])
        return int(answered[9:12]), await self._reader.readexactly(size)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def agree(answer: bytes, expected: bytes) -> bool:
    """Whether two MC answers differ by rounding only."""
    if answer == expected:
        return True
    one, other = (json.loads(text)["outputs"] for text in (answer, expected))
    for name in one.keys() - {"label"}:
        atol = 1e-5 if name == "probabilities" else 5e-3
        if not np.allclose(one[name], other[name], atol=atol, rtol=1e-4):
            return False
    return one.keys() == other.keys() and one["label"] == other["label"]


async def load(port: int, name: str, kind: str, rows: int, args) -> dict:
    asked = bodies(kind, rows, args.width)
    path = f"/v1/models/{name}:predict"
    alone = Connection(port, path)
    expected = [(await alone.ask(body))[1] for body in asked]
    alone.close()
    seconds, wrong, lost, first_bad = [], 0, 0, ""
    end = time.perf_counter() + args.seconds

    async def ask_on(number: int) -> None:
        nonlocal wrong, lost, first_bad
        connection = Connection(port, path)
        while time.perf_counter() < end:
            number = (number + 1) % DIFFERENT
            started = time.perf_counter()
            try:
                status, answer = await connection.ask(asked[number])
            except (OSError, EOFError, asyncio.IncompleteReadError):
                lost += 1
                connection.close()
                continue
            seconds.append(time.perf_counter() - started)
            same = answer == expected[number]
            if not same and kind != "deterministic" and status == 200:
                same = agree(answer, expected[number])
            if status != 200 or not same:
                wrong, first_bad = wrong + 1, first_bad or answer[:200].decode()
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(ask_on(i) for i in range(args.connections)))
    elapsed = time.perf_counter() - started
    if first_bad:
        print(f"first wrong answer: {first_bad}", file=sys.stderr)
    centiles = statistics.quantiles(seconds, n=100)
    return {
        "requests_per_s": round(len(seconds) / elapsed, 1),
        "p50_ms": round(centiles[49] * 1e3, 1),
        "p99_ms": round(centiles[98] * 1e3, 1),
        "answers": len(seconds),
        "wrong": wrong,
        "lost": lost,
    }


def resident_mib(process: int) -> float:
    """Of a process and those that it started."""
    status = Path(f"/proc/{process}/status").read_text()
    children = " ".join(f.read_text() for f in Path(f"/proc/{process}/task").glob("*/children"))
    own = int((re.search(r"VmRSS:\s+(\d+)", status) or [0, 0])[1]) / 1024
    return own + sum(resident_mib(int(child)) for child in children.split())


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def over_time(memory: list[tuple[float, float]]) -> dict:
    seconds, mib = np.array(memory).T
    fifth = max(1, len(mib) // 5)
    growth = mib[-fifth:].mean() - mib[fifth : 2 * fifth].mean()
    return {
        "memory_mib": [round(v) for v in mib[:: 2 * fifth]],
        "growth_mib": round(float(growth), 1),
        "pause_s": round(float(np.diff(seconds).max() - 1), 1),
    }


@contextlib.contextmanager
def server(model: Path, cores: set[int], *flags: str):
    """Yields its process number and port, the model's name, and memory by time."""
    command = [sys.executable, str(ROOT / "bin" / "serve"), str(model), "--port", "0", *flags]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    memory: list[tuple[float, float]] = []
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(1):
            memory.append((time.perf_counter(), resident_mib(process.pid)))

    try:
        name, line = None, ""
        for line in process.stdout:
            name = (re.search(r"/models/([^/]+)/", line) or [None, name])[1]
            if line.startswith("ready"):
                break
        port = int(line.rsplit(":", 1)[1])
        thread = threading.Thread(target=watch)
        thread.start()
        yield process.pid, port, name, memory
        watching.set()
        thread.join()
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            raise RuntimeError(f"the server ended with {process.returncode}")
    finally:
        watching.set()
        process.kill()


def measure(one: tuple, kind: str, rows: int, args) -> dict:
    process, port, name, memory = one
    first, used = len(memory), cpu_seconds(process)
    measured = asyncio.run(load(port, name, kind, rows, args))
    used = (cpu_seconds(process) - used) / (measured["answers"] + DIFFERENT)
    return measured | {"cpu_ms_per_answer": round(used * 1e3, 2)} | over_time(memory[first:])


def cell_name(kind: str, rows: int, how: str) -> str:
    return f"{kind}, {rows} row{'s' * (rows > 1)}, {how}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--model", type=Path, help="folder of versions or run")
    parser.add_argument("--width", type=int, default=512, help="of its embeddings")
    parser.add_argument("--rows", type=int, nargs="+", default=(1, 64))
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[1:]) or {cores[0]})
    report: dict = {"seconds": args.seconds, "connections": args.connections, "cores": len(cores)}
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or make_model(Path(folder) / "run")
        first, second = ((), ("--max-batch-rows", "0"))
        with (
            server(model, {cores[0]}, *first) as batched,
            server(model, {cores[0]}, *second) as alone,
        ):
            for rows in args.rows:
                for kind in KINDS:
                    for how, one in (("batched", batched), ("alone", alone)):
                        cell = cell_name(kind, rows, how)
                        report[cell] = measure(one, kind, rows, args)
                        print(f"{cell:32} {report[cell]}", flush=True)

    def ratio(kind: str, rows: int, value: str) -> float:
        together, alone = (report[cell_name(kind, rows, how)] for how in ("batched", "alone"))
        quotient = together[value] / alone[value]
        return round(quotient if value == "requests_per_s" else 1 / quotient, 2)

    cells = [v for v in report.values() if isinstance(v, dict)]
    report["wrong"] = sum(cell["wrong"] for cell in cells)
    report["lost"] = sum(cell["lost"] for cell in cells)
    for name, value in (("ratios", "requests_per_s"), ("cpu_ratios", "cpu_ms_per_answer")):
        report[name] = {f"{k}, {r}": ratio(k, r, value) for k in KINDS for r in args.rows}
    one = args.rows[0]
    report["batching_ratio"] = min(report["ratios"][f"{k}, {one}"] for k in KINDS[:2])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
