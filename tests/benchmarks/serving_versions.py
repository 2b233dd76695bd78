"""Versions that are replaced under load: whose answers are they, and does anybody wait?

    python tests/benchmarks/serving_versions.py [--seconds 60] [--connections 32] [--every 10]

Two exports of the paper's age network with different weights take turns as versions 1, 2, 3, …
of one folder, a new one every ten seconds, each copied there under another name and renamed, and
now and then one that is broken. `serve` runs on one core; 32 connections ask single rows from
another, half of them in TensorFlow Serving's dialect, half with binary tensors, each again as
soon as it is answered.

`wrong` are answers that are neither export's, or the earlier one's to a request that began after
the server said that the new one is served; `lost` are requests without an answer. `p99_ms` and
`max_ms` are of requests that were open while a version was looked at, loaded and taken up
(from the copy to the sentence that it is served), and of all others. The same is
measured first without any new version, `alone`. `taken_up_s` is from the rename to that sentence.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from serving import DIFFERENT, ROOT, Connection, make_model, over_time, resident_mib
from serving_binary import outputs, requests

FORMS = ("predict", "binary")


def make_exports(folder: Path) -> list[Path]:
    """Two version folders."""
    made = []
    for seed in (0, 1):
        run = make_model(folder / f"run{seed}", seed)
        target = folder / f"export{seed}" / "age"
        command = [sys.executable, str(ROOT / "bin" / "export-model"), str(run), str(target)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        made.append(target / "1")
    return made


def put(export: Path, folder: Path, number: int, *, broken: bool = False) -> None:
    copy = folder / ".copying"
    shutil.copytree(export, copy)
    if broken:
        weights = copy / "variables" / "variables.data-00000-of-00001"
        weights.write_bytes(weights.read_bytes()[:-1000])
    copy.rename(folder / str(number))


class Server:
    """`bin/serve` on one core, and when it said what."""

    def __init__(self, folder: Path, core: int, log: Path, poll_s: float):
        command = [sys.executable, str(ROOT / "bin" / "serve"), str(folder), "--port", "0"]
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                [*command, "--poll-s", str(poll_s)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        for line in self.process.stdout:
            if line.startswith("ready"):
                break
        self.port = int(line.rsplit(":", 1)[1])
        self.taken: dict[int, float] = {1: 0.0}
        self.released: set[int] = set()
        self.memory: list[tuple[float, float]] = []
        self._ended = threading.Event()
        for work in (self._listen, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            now = time.perf_counter()
            if found := re.match(r"(taken up|released) .*/versions/(\d+)", line):
                if found[1] == "released":
                    self.released.add(int(found[2]))
                else:
                    self.taken[int(found[2])] = now

    def _watch(self) -> None:
        while not self._ended.wait(1):
            self.memory.append((time.perf_counter(), resident_mib(self.process.pid)))

    def stop(self) -> int:
        self._ended.set()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Load:
    """Requests by form, and the answers of either export to each."""

    def __init__(self, port: int, x: np.ndarray):
        self.port = port
        self.paths = {"predict": "/v1/models/age:predict", "binary": "/v2/models/age/infer"}
        self.asked = {form: requests(form, "age", x) for form in FORMS}
        self.seen: list[tuple[float, float, bytes, str, int]] = []
        self.lost, self.refused = 0, 0

    async def ask_on(self, number: int, end: float) -> None:
        form = FORMS[number % 2]
        connection = Connection(self.port, self.paths[form])
        while (began := time.perf_counter()) < end:
            number = (number + 1) % DIFFERENT
            try:
                status, answer = await connection.ask(*self.asked[form][number])
            except (OSError, EOFError):
                self.lost += 1
                connection.close()
                continue
            self.refused += status != 200
            self.seen.append((began, time.perf_counter(), answer, form, number))
        connection.close()

    async def run(self, seconds: float, connections: int) -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(self.ask_on(i, end) for i in range(connections)))


def answers(version: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """What an export answers, computed in a process of its own, to the bit."""
    code = (
        "import sys\n"
        "from kerasmlp.utils.tensorflow_import import import_tensorflow\n"
        "import_tensorflow()\n"
        "import numpy as np\n"
        "from kerasmlp.serving.server.served_version import ServedVersion\n"
        "version, x = ServedVersion(sys.argv[1]), np.load(sys.argv[2])\n"
        "outputs = [version.run('serving_default', {'embedding': rows}) for rows in x]\n"
        "whole = {k: np.stack([o[k] for o in outputs]) for k in outputs[0]}\n"
        "np.savez(sys.argv[3], **{k: v.astype('S') if v.dtype == object else v"
        " for k, v in whole.items()})\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        words = [str(version), f"{folder}/x.npy", f"{folder}/y.npz"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code, *words], check=True, env=environment)
        with np.load(f"{folder}/y.npz") as file:
            return {k: file[k].astype(str) if file[k].dtype.kind == "S" else file[k] for k in file}


def judge(
    load: Load,
    exports: list[dict[str, np.ndarray]],
    put_at: dict[int, tuple[int, float]],
    taken: dict[int, float],
) -> int:
    """How many answers are nobody's, or of a version whose time was over or yet to come.

    Args:
        load: What was answered, and when.
        exports: What they answer.
        put_at: Of each version its export, and when it began to be copied.
        taken: When the server said that it is served.
    """
    known: dict[tuple, int] = {}
    wrong = 0
    for began, ended, answer, form, number in load.seen:
        if (key := (answer, form, number)) not in known:
            found = outputs(form, answer)
            known[key] = next(
                (k for k, one in enumerate(exports)
                 if all(np.array_equal(v, one[name][number]) for name, v in found.items())),
                -1,
            )  # fmt: skip
        last = max(v for v, when in taken.items() if when <= began)
        possible = {k for v, (k, when) in put_at.items() if v >= last and when <= ended}
        wrong += known[key] not in possible
    return wrong


def times(seen: list[tuple], windows: list[tuple[float, float]]) -> dict[str, dict]:
    """Of requests that were open within one of the windows, and of the others."""
    split: dict[str, list[float]] = {"changing": [], "otherwise": []}
    for began, ended, *_ in seen:
        is_open = any(began < b and ended > a for a, b in windows)
        split["changing" if is_open else "otherwise"].append(ended - began)
    return {
        name: {
            "answers": len(seconds),
            "p50_ms": round(statistics.median(seconds) * 1e3, 1),
            "p99_ms": round(statistics.quantiles(seconds, n=100)[98] * 1e3, 1),
            "max_ms": round(max(seconds) * 1e3, 1),
        }
        for name, seconds in split.items()
        if len(seconds) > 1
    }


def replace_on(exports: list[Path], folder: Path, args, put_at: dict) -> None:
    """Puts versions there, as long as the load lasts; a broken one before every third."""
    end, number = time.perf_counter() + args.seconds - args.every / 2, 1
    time.sleep(args.every / 2)
    for which in itertools.count(1):
        if time.perf_counter() > end:
            return
        number += 1
        if which % 3 == 0:
            put(exports[which % 2], folder, number, broken=True)
            time.sleep(args.every / 2)
            number += 1
        put_at[number] = which % 2, time.perf_counter()
        put(exports[which % 2], folder, number)
        time.sleep(args.every)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--every", type=float, default=10, help="seconds between versions")
    parser.add_argument("--poll-s", type=float, default=1.0)
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[1:]) or {cores[0]})
    x = np.random.default_rng(0).standard_normal((DIFFERENT, 1, 512), np.float32)
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        exports = make_exports(Path(place))
        expected = [answers(export, x) for export in exports]
        folder, log = Path(place) / "age", Path(place) / "log"
        folder.mkdir()
        put(exports[0], folder, 1)
        server = Server(folder, cores[0], log, args.poll_s)
        stack.callback(server.process.kill)
        load = Load(server.port, x)
        asyncio.run(load.run(min(args.seconds, 15), args.connections))
        alone = times(load.seen, [])["otherwise"]
        put_at = {1: (0, 0.0)}
        wrong, load.seen = judge(load, expected, put_at, server.taken), []
        first = len(server.memory)
        thread = threading.Thread(target=replace_on, args=(exports, folder, args, put_at))
        thread.start()
        asyncio.run(load.run(args.seconds, args.connections))
        thread.join()
        time.sleep(3)
        memory = over_time(server.memory[first:])
        code = server.stop()
        said = log.read_text().splitlines()
    wrong += judge(load, expected, put_at, server.taken)
    windows = [(put_at[n][1], when) for n, when in server.taken.items() if n > 1]
    waited = [b - a for a, b in windows]
    report: dict = {"seconds": args.seconds, "connections": args.connections, "cores": len(cores)}
    report |= {
        "versions": len(put_at) - 1,
        "taken_up": len(windows),
        "released": len(server.released),
    }
    report |= {
        "refused_versions": sum("not served" in line for line in said),
        "poll_s": args.poll_s,
        "wrong": wrong,
    }
    report |= {"lost": load.lost, "refused": load.refused, "exit_code": code}
    report["taken_up_s"] = {"median": round(statistics.median(waited), 2)}
    report["taken_up_s"]["max"] = round(max(waited), 2)
    report |= {"alone": alone, **times(load.seen, windows), **memory}
    print(*said, sep="\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
