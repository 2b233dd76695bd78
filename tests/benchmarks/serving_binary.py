"""64 rows asked in JSON and as binary tensors: how many answers a second, and what each costs.

    python tests/benchmarks/serving_binary.py [--seconds 4] [--rounds 9] [--model DIR_OR_RUN]

`predict` is TensorFlow Serving's JSON, `infer` the Open Inference Protocol's, `binary` the same
with the embeddings and all outputs behind the JSON. A server on one core, asked over kept
connections from another one, each of which asks again as soon as it is answered; in each round
every form has its turn, in another order each time.

Every answer is compared, byte by byte, with the one that the same request got alone, and the
outputs of the three forms with each other, to the bit. `cpu_ms` is the server's per answer, with
the process in which it decodes. The last line is one JSON object: medians over the rounds, and
`ratio`: the median of the rounds' ratios of binary answers a second to those of `infer` and of
`predict`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
from serving import DIFFERENT, Connection, cpu_seconds, make_model, server

FORMS = ("predict", "infer", "binary")


def requests(form: str, x: np.ndarray) -> list[tuple[bytes, str]]:
    """Bodies, and further lines of the head."""
    made = []
    for batch in x:
        if form == "predict":
            made.append((json.dumps({"inputs": {"embedding": batch.tolist()}}).encode(), ""))
            continue
        one = {"name": "embedding", "datatype": "FP32", "shape": list(batch.shape)}
        if form == "infer":
            one["data"] = batch.ravel().tolist()
            made.append((json.dumps({"inputs": [one]}).encode(), ""))
            continue
        content = batch.astype("<f4").tobytes()
        one["parameters"] = {"binary_data_size": len(content)}
        head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
        made.append((head + content, f"Inference-Header-Content-Length: {len(head)}\r\n"))
    return made


def outputs(form: str, answer: bytes) -> dict[str, np.ndarray]:
    """Of an answer, as float32 and texts."""
    if form == "predict":
        found = json.loads(answer)["outputs"]
        return {k: np.array(v, str if k == "label" else np.float32) for k, v in found.items()}
    whole, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
    arrays = {}
    for one in whole["outputs"]:
        if form == "infer":
            values = np.array(one["data"], str if one["datatype"] == "BYTES" else np.float32)
        else:
            size = one["parameters"]["binary_data_size"]
            part, end = answer[end : end + size], end + size
            values = np.frombuffer(part, "<f4") if one["datatype"] == "FP32" else texts(part)
        arrays[one["name"]] = values.reshape(one["shape"])
    return arrays


def texts(part: bytes) -> np.ndarray:
    found = []
    while part:
        (size,) = struct.unpack("<I", part[:4])
        found, part = [*found, part[4 : 4 + size].decode()], part[4 + size :]
    return np.array(found, str)


class Load:
    def __init__(self, port: int, name: str, process: int, x: np.ndarray):
        paths = {"predict": f"/v1/models/{name}:predict"}
        self.paths = {form: paths.get(form, f"/v2/models/{name}/infer") for form in FORMS}
        self.port, self.process = port, process
        self.asked = {form: requests(form, x) for form in FORMS}
        self.expected: dict[str, list[bytes]] = {}
        self.wrong = self.lost = 0

    async def learn(self) -> None:
        for form in FORMS:
            alone = Connection(self.port, self.paths[form])
            answers = [await alone.ask(*one) for one in self.asked[form]]
            alone.close()
            assert all(status == 200 for status, _ in answers), answers[0]
            self.expected[form] = [answer for _, answer in answers]
        for answers in zip(*(self.expected[form] for form in FORMS), strict=True):
            found = [outputs(f, answer) for f, answer in zip(FORMS, answers, strict=True)]
            for name, values in found[0].items():
                assert all(np.array_equal(other[name], values) for other in found[1:]), name

    async def measure(self, form: str, seconds: float, connections: int) -> tuple[float, float]:
        """Answers a second, and processor time of each in milliseconds."""
        answers, end = 0, time.perf_counter() + seconds

        async def ask_on(number: int) -> None:
            nonlocal answers
            connection = Connection(self.port, self.paths[form])
            while time.perf_counter() < end:
                number = (number + 1) % DIFFERENT
                try:
                    status, answer = await connection.ask(*self.asked[form][number])
                except (OSError, EOFError):
                    self.lost += 1
                    connection.close()
                    continue
                self.wrong += status != 200 or answer != self.expected[form][number]
                answers += 1
            connection.close()

        used, started = all_cpu_seconds(self.process), time.perf_counter()
        await asyncio.gather(*(ask_on(i) for i in range(connections)))
        elapsed = time.perf_counter() - started
        return answers / elapsed, (all_cpu_seconds(self.process) - used) / answers * 1e3


def all_cpu_seconds(process: int) -> float:
    """Of a process and those that it started."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    children = " ".join(path.read_text() for path in tasks).split()
    return cpu_seconds(process) + sum(all_cpu_seconds(int(child)) for child in children)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4, help="of each form in each round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--model", type=Path, help="folder of versions or run")
    parser.add_argument("--width", type=int, default=512, help="of its embeddings")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[1:]) or {cores[0]})
    x = np.random.default_rng(0).standard_normal((DIFFERENT, args.rows, args.width), np.float32)
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    rounds: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or make_model(Path(folder) / "run")
        with server(model, {cores[0]}) as (process, port, name, _):
            load = Load(port, name, process, x)
            asyncio.run(load.learn())
            for number in range(args.rounds):
                for k in range(len(FORMS)):
                    form = FORMS[(number + k) % len(FORMS)]
                    seen = asyncio.run(load.measure(form, args.seconds, args.connections))
                    rounds[form].append(seen)
                print({form: round(seen[-1][0], 1) for form, seen in rounds.items()}, flush=True)
    report: dict = {"rows": args.rows, "connections": args.connections, "cores": len(cores)}
    report |= {"rounds": args.rounds, "seconds": args.seconds, "wrong": load.wrong}
    report["lost"] = load.lost
    for form in FORMS:
        per_s, cpu_ms = (statistics.median(values) for values in zip(*rounds[form], strict=True))
        sizes = len(load.asked[form][0][0]), len(load.expected[form][0])
        report[form] = {"answers_per_s": round(per_s, 1), "cpu_ms": round(cpu_ms, 2)}
        report[form] |= {"asked_kib": round(sizes[0] / 1024), "answer_kib": round(sizes[1] / 1024)}
    report["ratio"] = {
        form: round(
            statistics.median(
                binary[0] / other[0]
                for binary, other in zip(rounds["binary"], rounds[form], strict=True)
            ),
            2,
        )
        for form in FORMS[:2]
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
