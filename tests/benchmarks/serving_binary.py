"""64 rows asked in JSON, as binary tensors and over gRPC: answers a second, and what each costs.

    python tests/benchmarks/serving_binary.py [--seconds 4] [--rounds 9] [--model DIR_OR_RUN]

`predict` is TensorFlow Serving's JSON, `infer` the Open Inference Protocol's, `binary` the same
with the embeddings and all outputs behind the JSON, `grpc` the same raw, by gRPC's Python client
(extra `grpc`). A server on one core, asked over kept connections from another one, each of which
asks again as soon as it is answered; in each round every form has its turn, in another order each
time.

Every answer is compared, byte by byte, with the one that the same request got alone, and the
outputs of the four forms with each other, to the bit. `cpu_ms` is the server's per answer, with
the process in which it decodes. The last line is one JSON object: medians over the rounds, and
`ratio` and `grpc_ratio`: the medians of the rounds' ratios of answers a second, of `binary` and of
`grpc` to those of the other forms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

import grpc
import numpy as np
from serving import DIFFERENT, Connection, cpu_seconds, make_model, server

from kerasmlp.serving.server.grpc_messages import SERVICE, messages

FORMS = ("predict", "infer", "binary", "grpc")


class GrpcConnection:
    """As a `Connection`."""

    def __init__(self, port: int):
        own = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=own)
        self._infer = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")

    async def ask(self, body: bytes, _: str) -> tuple[int, bytes]:
        try:
            return 200, await self._infer(body)
        except grpc.RpcError as error:
            raise OSError(error.details()) from None

    def close(self) -> Awaitable:
        return self._channel.close()


def requests(form: str, name: str, x: np.ndarray) -> list[tuple[bytes, str]]:
    """Bodies, and further lines of the head."""
    made = []
    for batch in x:
        if form == "predict":
            made.append((json.dumps({"inputs": {"embedding": batch.tolist()}}).encode(), ""))
            continue
        one = {"name": "embedding", "datatype": "FP32", "shape": list(batch.shape)}
        if form == "grpc":
            tensors = {"inputs": [one], "raw_input_contents": [batch.astype("<f4").tobytes()]}
            message = messages()["ModelInferRequest"](model_name=name, **tensors)
            made.append((message.SerializeToString(), ""))
            continue
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
    if form == "grpc":
        message = messages()["ModelInferResponse"].FromString(answer)
        both = zip(message.outputs, message.raw_output_contents, strict=True)
        return {one.name: array(one.datatype, part).reshape(one.shape) for one, part in both}
    whole, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
    arrays = {}
    for one in whole["outputs"]:
        if form == "infer":
            values = np.array(one["data"], str if one["datatype"] == "BYTES" else np.float32)
        else:
            size = one["parameters"]["binary_data_size"]
            part, end = answer[end : end + size], end + size
            values = array(one["datatype"], part)
        arrays[one["name"]] = values.reshape(one["shape"])
    return arrays


def array(datatype: str, part: bytes) -> np.ndarray:
    return np.frombuffer(part, "<f4") if datatype == "FP32" else texts(part)


def texts(part: bytes) -> np.ndarray:
    found = []
    while part:
        (size,) = struct.unpack("<I", part[:4])
        found, part = [*found, part[4 : 4 + size].decode()], part[4 + size :]
    return np.array(found, str)


class Load:
    def __init__(self, ports: tuple[int, int], name: str, process: int, x: np.ndarray):
        paths = {"predict": f"/v1/models/{name}:predict"}
        self.paths = {form: paths.get(form, f"/v2/models/{name}/infer") for form in FORMS}
        self.ports, self.process = ports, process
        self.asked = {form: requests(form, name, x) for form in FORMS}
        self.expected: dict[str, list[bytes]] = {}
        self.wrong = self.lost = 0

    def connection(self, form: str) -> Connection | GrpcConnection:
        if form == "grpc":
            return GrpcConnection(self.ports[1])
        return Connection(self.ports[0], self.paths[form])

    async def learn(self) -> None:
        for form in FORMS:
            alone = self.connection(form)
            answers = [await alone.ask(*one) for one in self.asked[form]]
            await close(alone)
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
            connection = self.connection(form)
            while time.perf_counter() < end:
                number = (number + 1) % DIFFERENT
                try:
                    status, answer = await connection.ask(*self.asked[form][number])
                except (OSError, EOFError):
                    self.lost += 1
                    await close(connection)
                    connection = self.connection(form)
                    continue
                self.wrong += status != 200 or answer != self.expected[form][number]
                answers += 1
            await close(connection)

        used, started = all_cpu_seconds(self.process), time.perf_counter()
        await asyncio.gather(*(ask_on(i) for i in range(connections)))
        elapsed = time.perf_counter() - started
        return answers / elapsed, (all_cpu_seconds(self.process) - used) / answers * 1e3


async def close(connection: Connection | GrpcConnection) -> None:
    if (closing := connection.close()) is not None:
        await closing


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def all_cpu_seconds(process: int) -> float:
    """Of a process and those that it started."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    children = " ".join(path.read_text() for path in tasks).split()
    return cpu_seconds(process) + sum(all_cpu_seconds(int(child)) for child in children)


def ratio(rounds: list[tuple[float, float]], others: list[tuple[float, float]]) -> float:
    both = zip(rounds, others, strict=True)
    return round(statistics.median(one[0] / other[0] for one, other in both), 2)


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
        grpc_port = free_port()
        how = model, {cores[0]}, "--grpc-port", str(grpc_port)
        with server(*how) as (process, port, name, _):
            load = Load((port, grpc_port), name, process, x)
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
    for key, one in (("ratio", "binary"), ("grpc_ratio", "grpc")):
        report[key] = {form: ratio(rounds[one], rounds[form]) for form in FORMS if form != one}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
