"""The HTTP service, held against TensorFlow Serving's dialect, under hostile and concurrent use."""

import asyncio
import contextlib
import gzip
import http.client
import json
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from data_sets import ROOT
from forked import fresh_python
from test_export import WIDTH, X

pytest.importorskip("aiohttp", reason="needs aiohttp (extra `serve`)")
pytest.importorskip("orjson", reason="needs orjson (extra `serve`)")
pytest.importorskip("prometheus_client", reason="needs prometheus_client (extra `serve`)")
from served import http_request, post, service

from kerasmlp import InputError
from kerasmlp.cli import run_command
from kerasmlp.serving.server import bodies
from kerasmlp.serving.server.batching import Batcher
from kerasmlp.serving.server.http_server import serve
from kerasmlp.serving.server.limits import Limits
from kerasmlp.serving.server.questions import Question
from kerasmlp.serving.server.rest_json import encode
from kerasmlp.serving.server.served_models import ServedModel, load_models
from kerasmlp.serving.server.served_version import ServedVersion

PREDICT = "/v1/models/age:predict"


@pytest.fixture(scope="module")
def port(models):
    with service(models, max_rows=200, max_body_bytes=1 << 20) as port:
        yield port


def mc_inputs(x, num_samples, seed):
    return {
        "embedding": x,
        "num_samples": np.broadcast_to(np.int32(num_samples), len(x)),
        "seed": np.broadcast_to(np.int64(seed), len(x)),
    }


def as_json(inputs):
    return {name: values.tolist() for name, values in inputs.items()}


def by_row(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(outputs):
    """As JSON has them: texts, and numbers that are those of float32."""
    return {
        name: [v.decode() for v in values] if name == "label" else values.tolist()
        for name, values in outputs.items()
    }


def as_float32(outputs):
    return {k: v if k == "label" else np.array(v, np.float32).tolist() for k, v in outputs.items()}


def test_columns_to_the_bit(port, version):
    expected = plain(version.run("serving_default", {"embedding": X}))
    for inputs in ({"embedding": X.tolist()}, X.tolist()):  # one input may come bare
        status, answer = post(port, {"inputs": inputs})
        assert (status, list(answer)) == (200, ["outputs"])
        assert as_float32(answer["outputs"]) == expected
    expected = plain(version.run("serve_mc", mc_inputs(X, 12, 2**40 + 3)))
    for numbers in ({"num_samples": 12, "seed": 2**40 + 3}, as_json(mc_inputs(X, 12, 2**40 + 3))):
        inputs = {**numbers, "embedding": X.tolist()}
        status, answer = post(port, {"signature_name": "serve_mc", "inputs": inputs})
        assert status == 200 and as_float32(answer["outputs"]) == expected


def test_rows_to_the_bit(port, version):
    expected = by_row(plain(version.run("serving_default", {"embedding": X})))
    for instances in ([{"embedding": row} for row in X.tolist()], X.tolist()):
        request = {"signature_name": "serving_default", "instances": instances}
        status, answer = post(port, request, "/v1/models/age/versions/1:predict")
        assert (status, list(answer)) == (200, ["predictions"])
        assert [as_float32(row) for row in answer["predictions"]] == expected
    inputs = mc_inputs(X, [3, 9, 1, 3, 64, 3, 2], [0, 1, 2, 3, 4, 5, 2**63 - 1])
    request = {"signature_name": "serve_mc", "instances": by_row(as_json(inputs))}
    status, answer = post(port, request)
    expected = by_row(plain(version.run("serve_mc", inputs)))
    assert [as_float32(row) for row in answer["predictions"]] == expected


def test_an_empty_name_means_the_default_signature(port):
    """As to TensorFlow Serving."""
    request = {"inputs": X.tolist()}
    assert post(port, {"signature_name": "", **request}) == post(port, request)


def test_rows_that_run_over_have_no_answer(port):
    x = X.copy()
    x[2] = 3e38
    for inputs in ({"embedding": x}, mc_inputs(x, 5, 0)):
        signature = "serve_mc" if "seed" in inputs else "serving_default"
        request = {"signature_name": signature, "inputs": as_json(inputs)}
        assert post(port, request) == (
            400,
            {
                "error": "`embedding[2]` must have a finite answer of the model. "
                "Received: numbers with which it runs over"
            },
        )


def test_one_output_is_bare_and_bytes_are_base64():
    """As TensorFlow Serving documents it; the models here have several outputs and texts."""
    two = {"a": np.float32([[1.5, 2]]), "x_bytes": np.array([b"\xff"])}
    expected = b'{"predictions":[{"a":[1.5,2.0],"x_bytes":{"b64":"/w=="}}]}'
    assert encode(two, by_row=True) == expected
    one = {"a": np.float32([[1.5, 2], [3, 4]])}
    assert encode(one, by_row=True) == b'{"predictions":[[1.5,2.0],[3.0,4.0]]}'
    assert encode(one, by_row=False) == b'{"outputs":[[1.5,2.0],[3.0,4.0]]}'


def test_answers_agree_with_the_protocol_buffers(port, version):
    """Requests and answers are built as messages, and written as JSON from these."""
    predict_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.predict_pb2", reason="needs tensorflow-serving-api"
    )
    import tensorflow as tf
    from google.protobuf.json_format import MessageToDict, ParseDict
    from tensorflow_serving.apis import get_model_metadata_pb2 as metadata_pb2
    from tensorflow_serving.apis import get_model_status_pb2 as status_pb2

    for signature, inputs in (
        ("serving_default", {"embedding": X}),
        ("serve_mc", mc_inputs(X, 5, 3)),
    ):
        request, response = predict_pb2.PredictRequest(), predict_pb2.PredictResponse()
        request.model_spec.name, request.model_spec.signature_name = "age", signature
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        for name, values in version.run(signature, inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        columns = {k: tf.make_ndarray(v).tolist() for k, v in request.inputs.items()}
        expected = plain({k: tf.make_ndarray(v) for k, v in response.outputs.items()})
        name = {"signature_name": request.model_spec.signature_name}
        assert as_float32(post(port, {**name, "inputs": columns})[1]["outputs"]) == expected
        answer = post(port, {**name, "instances": by_row(columns)})[1]["predictions"]
        assert [as_float32(row) for row in answer] == by_row(expected)

    _, answer, _ = http_request(port, "GET", "/v1/models/age")
    message = ParseDict(answer, status_pb2.GetModelStatusResponse())
    (state,) = message.model_version_status
    assert (state.version, state.state) == (1, status_pb2.ModelVersionStatus.AVAILABLE)
    how = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    assert MessageToDict(message, **how) == answer
    _, answer, _ = http_request(port, "GET", "/v1/models/age/metadata")
    assert list(answer) == ["model_spec", "metadata"] and list(answer["metadata"]) == [
        "signature_def"
    ]
    content = answer["metadata"]["signature_def"]
    message = ParseDict(content, metadata_pb2.SignatureDefMap())
    assert MessageToDict(message, **how) == content
    inputs = message.signature_def["serve_mc"].inputs
    assert sorted(inputs) == ["embedding", "num_samples", "seed"]
    assert [d.size for d in inputs["embedding"].tensor_shape.dim] == [-1, WIDTH]
    assert answer["model_spec"] == {"name": "age", "signature_name": "", "version": "1"}


def test_a_real_tensorflow_model_server(folder, version):
    """The same requests to TensorFlow Serving itself."""
    program = shutil.which("tensorflow_model_server")
    if not program:
        pytest.skip("no tensorflow_model_server on this machine: not compared with the real one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--port=0", f"--rest_api_port={port}", "--model_name=age"]
    process = subprocess.Popen([*command, f"--model_base_path={folder}"])
    try:
        for _ in range(300):
            try:
                if http_request(port, "GET", "/v1/models/age")[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        test_columns_to_the_bit(port, version)
        test_rows_to_the_bit(port, version)
        test_answers_agree_with_the_protocol_buffers(port, version)
    finally:
        process.kill()


def test_the_other_paths(port):
    assert http_request(port, "GET", "/healthz")[:2] == (200, {"status": "running"})
    assert http_request(port, "GET", "/readyz")[:2] == (200, {"status": "ready"})
    _, one, _ = http_request(port, "GET", "/v1/models/age/versions/1")
    assert one["model_version_status"][0]["version"] == "1"
    post(port, {"inputs": X.tolist()})
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    counted = r'kerasmlp_answers_total{code="200",model="age",signature="serving_default"} \d+'
    assert re.search(counted, text) and "# TYPE kerasmlp_answer_seconds histogram" in text
    assert re.search(r'kerasmlp_rows_total{model="age",signature="serving_default"} \d+', text)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/models/none", 404, "there is no model 'none'"),
        ("POST", "/v1/models/none:predict", 404, "there is no model 'none'"),
        ("POST", "/v1/models/age/versions/2:predict", 404, "age has no version '2'"),
        ("POST", "/v1/models/age/versions/x:predict", 404, "age has no version 'x'"),
        ("POST", "/v1/models/age/versions/1%2F2:predict", 404, "age has no version '1/2'"),
        ("GET", "/v1/models/age/labels/stable/metadata", 404, "age has no label 'stable'"),
        ("POST", "/v1/models/age:classify", 400, "only :predict is answered, not :classify"),
        ("GET", PREDICT, 405, "this path does not take this method"),
        ("DELETE", "/v1/models/age", 405, "this path does not take this method"),
        ("GET", "/v1/models", 404, "there is nothing at this path"),
    ],
)
def test_wrong_paths(port, method, path, status, message):
    answered, content, _ = http_request(port, method, path)
    assert answered == status and list(content) == ["error"]
    assert content["error"].startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "`body` must be a JSON object. Received: []"),
        ({}, "`body` must hold either `instances` or `inputs`. Received: []"),
        (
            {"instances": [[0.0]], "signature": "serve_mc"},
            "`body` must hold `signature_name`, `instances` or `inputs` alone. "
            "Received: 'signature'",
        ),
        ({"inputs": 1, "instances": 1}, "`body` must hold either"),
        ({"signature_name": "x", "inputs": []}, "must be one of serving_default, serve_mc"),
        ({"signature_name": 0, "inputs": []}, "`signature_name` must be one of"),
        ({"inputs": []}, "`embedding` must be a list of at least one row. Received: []"),
        ({"inputs": [[1.0]]}, f"`embedding[0]` must be a list of {WIDTH} numbers. Received: 1"),
        ({"inputs": [1.0]}, f"`embedding[0]` must be a list of {WIDTH} numbers. Received: 1.0"),
        ({"inputs": [[True] * WIDTH]}, "`embedding[0]` must hold numbers only. Received: True"),
        ({"inputs": [[1e39] * WIDTH]}, "`embedding` must hold numbers that float32 can hold"),
        ({"inputs": [[0] * WIDTH] * 201}, "`embedding` must hold at most 200 rows. Received: 201"),
        ({"instances": [{"x": 1}]}, "`instances[0]` must be an object of embedding. Received: ['x"),
        ({"instances": {"b64": "AA=="}}, "`instances` must be a list of at least one row."),
    ],
)
def test_refused_bodies(port, content, message):
    status, answer = post(port, content)
    assert status == 400 and message in answer["error"]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_samples": 0, "seed": 0}, "`num_samples` must be an integer from 1 to 4096. Rec"),
        ({"num_samples": 4097, "seed": 0}, "Received: 4097"),
        ({"num_samples": 8.0, "seed": 0}, "Received: 8.0"),
        ({"num_samples": 8, "seed": -1}, "`seed` must be an integer from 0 to 92233720368547758"),
        ({"num_samples": 8, "seed": 2**63}, "`seed` must be an integer"),
        ({"num_samples": [8, 8], "seed": 0}, "must be one number, or one per row. Received: 2"),
        ({"num_samples": 8}, "`inputs` must be an object of embedding, num_samples, seed. Rece"),
        ({"num_samples": 4000, "seed": 0}, "rows times num_samples must be at most 262144"),
    ],
)
def test_refused_numbers(port, numbers, message):
    inputs = {"embedding": np.resize(X, (70, WIDTH)).tolist(), **numbers}
    status, answer = post(port, {"signature_name": "serve_mc", "inputs": inputs})
    assert status == 400 and message in answer["error"]


def hostile_requests(count):
    """Method, path, headers and body; the same ones every time."""
    rng = random.Random(0)
    row = [round(rng.gauss(0, 1), 3) for _ in range(WIDTH)]
    good = json.dumps({"instances": [{"embedding": row}]})

    def with_row(values):
        return json.dumps({"instances": [{"embedding": values}]})

    def replaced(value):
        values = list(row)
        values[rng.randrange(WIDTH)] = value
        return values

    def mc(num_samples, seed):
        one = {"embedding": row, "num_samples": num_samples, "seed": seed}
        return json.dumps({"signature_name": "serve_mc", "instances": [one]})

    def deep(opening, closing, inside):
        depth = rng.choice([10, 100, 1000, 100_000])
        return opening * depth + inside + closing * depth

    bad_number = [0, -1, 1.0, 2**31, 2**64, "8", None, True, [], [1, 2], {}, 1e300, -0.5]
    wrong = ["1", "NaN", None, True, [], {}, [1.0], {"b64": "AAAA"}, 1e39, -1e308, "\ud800"[:0]]
    pickled = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."
    bomb = gzip.compress(bytes(20_000_000))
    kinds = [
        lambda: rng.randbytes(rng.randrange(2000)),
        lambda: good[: rng.randrange(1, len(good))],
        lambda: good + good,
        lambda: with_row(replaced(0.5)).replace(
            "0.5", rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "0x10", "+1", "01", "1_0"])
        ),
        lambda: with_row(replaced(rng.choice(wrong))),
        lambda: with_row([0.5] * rng.choice([0, 1, WIDTH - 1, WIDTH + 1, 512, 5000])),
        lambda: with_row(rng.choice([None, "text", 7, {"0": 1}, [row], [[row]]])),
        lambda: deep("[", "]", "1"),
        lambda: deep('{"instances":', "}", "[]"),
        lambda: '{"inputs":' + deep("[", "]", json.dumps(row)) + "}",
        lambda: json.dumps({"instances": [row] * rng.choice([201, 1000])}),
        lambda: b'{"inputs":[[' + b"1," * 700_000 + b"1]]}",
        lambda: b'{"inputs":"' + b"a" * rng.choice([10, 100_000]) + b'"}',
        lambda: json.dumps(
            {"instances": [row, rng.choice([{"embedding": row}, 1, None, row[1:]])]}
        ),
        lambda: json.dumps({rng.choice(["instance", "input", "__class__", ""]): [row]}),
        lambda: json.dumps(rng.choice([None, True, 1, 1.5, "x", [], [row], {}])),
        lambda: json.dumps(
            {"signature_name": rng.choice([1, None, [], {}, "", "x"]), "inputs": []}
        ),
        lambda: mc(rng.choice(bad_number), 0),
        lambda: mc(8, rng.choice([v for v in bad_number if v not in (0, 2**31) or v is None])),
        lambda: pickled + rng.randbytes(9),
        lambda: json.dumps({"inputs": {"embedding": {"b64": "gASVAAAA"}}}),
        lambda: b"\xff\xd8\xff\xe0\x00\x10JFIF" + rng.randbytes(rng.randrange(500)),
        lambda: bomb,
        lambda: b"",
    ]
    paths = ["/v1/models/%00:predict", "/v1/models/..%2f..%2fetc:predict", "/v1/models/age:explode"]
    paths += ["/v1/models/age/versions/-1:predict", f"/v1/models/age/versions/{'9' * 5000}:predict"]
    paths += ["/v1/models/age/versions/%D9%A1:predict", "/v1/models/:predict"]  # an Arabic one
    for number in range(count):
        body = kinds[number % len(kinds)]()
        body = body.encode() if isinstance(body, str) else body
        headers = {"Content-Encoding": "gzip"} if body is bomb else {}
        yield "POST", PREDICT if number % 10 else rng.choice(paths), headers, body


def test_hostile_requests_are_refused_and_forgotten(port):
    before = post(port, {"inputs": X.tolist()})
    codes = {}
    for method, path, headers, body in hostile_requests(240):
        status, answer, _ = http_request(port, method, path, body, headers)
        assert 400 <= status < 500, (status, body[:100])
        assert list(answer) == ["error"]
        sentence = answer["error"]
        assert 10 < len(sentence) < 500 and "\n" not in sentence and "Traceback" not in sentence
        codes[status] = codes.get(status, 0) + 1
    assert codes[400] > 150 and codes[413] >= 8 and codes[415] >= 5 and codes[404] >= 8
    assert post(port, {"inputs": X.tolist()}) == before


@pytest.mark.parametrize(
    "sent", [b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60)]
)
def test_what_is_no_http(port, sent):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent + b"\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.0 400")
    assert http_request(port, "GET", "/readyz")[0] == 200


def test_foreign_names_are_refused(models, port):
    """A page may have its name lead to this machine."""

    def asked(port, host):
        status, answer, _ = http_request(port, "GET", "/readyz", headers={"Host": host})
        return status, answer.get("error")

    sentence = "the server is not known by this name: see --allow-host"
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "", "[::1"):
        assert asked(port, host) == (403, sentence)
    for host in ("localhost", "LOCALHOST:1", f"127.0.0.1:{port}", "[::1]:80", "[::1]"):
        assert asked(port, host) == (200, None)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")  # a health check in a container
        assert connection.recv(1000).startswith(b"HTTP/1.0 200")
    with service(models, allowed_hosts=["a.example"]) as port:
        assert asked(port, "a.example:8501") == asked(port, "localhost") == (200, None)
        assert asked(port, "b.example") == (403, sentence)
    with service(models, host="0.0.0.0") as port:
        assert asked(port, "pod.cluster.local:8501") == (200, None)
    with service(models, host="0.0.0.0", allowed_hosts=["a.example"]) as port:
        assert asked(port, "pod.cluster.local") == (403, sentence)


def test_an_expectation_is_refused_in_json(port):
    status, answer, _ = http_request(port, "POST", PREDICT, b"{}", {"Expect": "nonsense"})
    assert status == 417 and list(answer) == ["error"]


def test_lengths_must_be_given_and_bodies_arrive(models):
    with service(models, timeout_s=0.3, max_body_bytes=5000) as port:
        body = iter([b'{"inputs":', b"[]}"])
        status, answer, _ = http_request(port, "POST", PREDICT, body)
        assert (status, answer["error"]) == (411, "the request must have a Content-Length")
        status, answer, headers = http_request(port, "POST", PREDICT, bytes(5001))
        assert (status, answer["error"]) == (413, "the body is too large: at most 5000 bytes")
        assert headers["Connection"] == "close"
        promised = {"Content-Length": "100"}
        status, answer, _ = http_request(port, "POST", PREDICT, b"{", promised)
        assert (status, answer["error"]) == (408, "the body did not arrive in time")
        assert post(port, {"inputs": X[:1].tolist()})[0] == 200


def test_bodies_that_do_not_arrive_lock_nobody_out(models):
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n{{".encode()
    with service(models, max_body_bytes=5000) as port, contextlib.ExitStack() as kept:
        for _ in range(20):
            connection = socket.create_connection(("127.0.0.1", port))
            kept.enter_context(connection).sendall(head)
        time.sleep(0.2)
        assert post(port, {"inputs": X[:1].tolist()})[0] == 200


def test_a_large_body_and_other_sites_pages(models):
    with service(models) as port:
        body = json.dumps({"inputs": X.tolist()})
        expected = http_request(port, "POST", PREDICT, body)
        assert http_request(port, "POST", PREDICT, body + " " * (2 << 20))[1] == expected[1]
        wrong = http_request(port, "POST", PREDICT, "[" + " " * (2 << 20) + "]")
        assert (wrong[0], wrong[1]["error"]) == (400, "`body` must be a JSON object. Received: []")
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert http_request(port, "POST", PREDICT, body, foreign)[0] == 403


class Slow:
    """Stands in for a model that takes its time, or fails on rows that begin with 13."""

    max_samples, width, watch = 0, 1, None

    def __init__(self, seconds):
        self.signatures = {"serving_default": ("embedding",)}
        self.seconds = seconds
        self.batches = []

    def run(self, signature, inputs):
        time.sleep(self.seconds)
        self.batches.append(inputs["embedding"][:, 0].tolist())
        if 13 in self.batches[-1]:
            raise RuntimeError("internals that nobody should see")
        return {"twice": 2 * inputs["embedding"][:, 0]}


def test_too_many_and_too_slow():
    slow = {"slow": ServedModel("slow", {1: Slow(0.6)}, {})}
    ask = {"inputs": [[1.0]]}, "/v1/models/slow:predict"
    with service(slow, max_requests=2, timeout_s=9.0) as port, ThreadPoolExecutor(3) as pool:
        answers = [future.result() for future in [pool.submit(post, port, *ask) for _ in range(3)]]
        assert sorted(status for status, _ in answers) == [200, 200, 503]
        busy = next(answer for status, answer in answers if status == 503)
        assert busy == {"error": "too many requests at one time, try again"}
        assert post(port, *ask) == (200, {"outputs": [2.0]})
    with service({"slow": ServedModel("slow", {1: Slow(0.6)}, {})}, timeout_s=0.2) as port:
        assert post(port, *ask) == (504, {"error": "not computed within 0.2 s"})


def test_who_hangs_up_is_not_computed():
    model = Slow(0.4)
    path, body = "/v1/models/slow:predict", b'{"inputs": [[7.0]]}'
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    with service({"slow": ServedModel("slow", {1: model}, {})}, max_batch_rows=0) as port:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, port, {"inputs": [[1.0]]}, path)
            time.sleep(0.15)
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(head + body)
                time.sleep(0.1)
            assert first.result()[0] == 200
        assert post(port, {"inputs": [[2.0]]}, path)[0] == 200
        assert model.batches == [[1], [2]]
        assert 'code="499",model="slow",signature="serving_default"} 1.0' in metrics(port)


def test_what_would_wait_in_vain_is_refused(monkeypatch):
    monkeypatch.setattr("kerasmlp.serving.server.batching._PASSES_PER_S", 0.1)
    slow = {"slow": ServedModel("slow", {1: Slow(0.3)}, {})}
    ask = {"inputs": [[1.0], [2.0]]}, "/v1/models/slow:predict"
    with service(slow) as port, ThreadPoolExecutor(3) as pool:
        answers = []
        for _ in range(3):
            answers.append(pool.submit(post, port, *ask))
            time.sleep(0.08)
        assert [answer.result()[0] for answer in answers] == [200, 200, 503]
        assert post(port, *ask)[0] == 200


def test_ready_until_told_to_stop():
    seen = []

    def started(url, _):
        def stop():
            port = int(url.rsplit(":", 1)[1])
            seen.append(http_request(port, "GET", "/readyz")[0])
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.3)
            seen.append(http_request(port, "GET", "/readyz")[0])

        threading.Thread(target=stop).start()

    slow = {"slow": ServedModel("slow", {1: Slow(0)}, {})}
    asyncio.run(serve(slow, host="127.0.0.1", port=0, limits=Limits(drain_s=2), started=started))
    assert seen == [200, 503]


def test_a_failure_is_one_sentence_without_internals():
    with service({"slow": ServedModel("slow", {1: Slow(0)}, {})}) as port:
        path = "/v1/models/slow:predict"
        expected = 500, {"error": "the request could not be computed"}
        assert post(port, {"inputs": [[13.0]]}, path) == expected
        assert post(port, {"inputs": [[1.0]]}, path)[0] == 200


def questions(*rows):
    arrays = [np.array(values, np.float32)[:, None] for values in rows]
    return [Question("serving_default", {"embedding": array}) for array in arrays]


@pytest.mark.parametrize(
    ("max_batch_rows", "batches"),
    [(4, [[1], [2, 3, 4, 10], [5, 6, 7, 8, 9]]), (0, [[1], [2, 3], [4], [5, 6, 7, 8, 9], [10]])],
)
def test_what_waits_is_computed_together(max_batch_rows, batches):
    model = Slow(0.05)

    async def ask():
        batcher = Batcher(Limits(max_batch_rows=max_batch_rows))
        await batcher.start()
        asked = questions([1], [2, 3], [4], [5, 6, 7, 8, 9], [10])
        answers = [asyncio.create_task(batcher.ask(model, question)) for question in asked[:1]]
        await asyncio.sleep(0.02)
        answers += [asyncio.create_task(batcher.ask(model, question)) for question in asked[1:]]
        answers = await asyncio.gather(*answers)
        await batcher.stop()
        return [answer["twice"].tolist() for answer in answers]

    assert asyncio.run(ask()) == [[2], [4, 6], [8], [10, 12, 14, 16, 18], [20]]
    assert model.batches == batches


def test_a_batch_is_bounded_by_its_passes_and_answered_before_the_end():
    model = Slow(0.05)

    async def ask():
        batcher = Batcher(Limits(max_batch_rows=100, max_passes=3))
        await batcher.start()
        asked = questions([1], [2, 3], [4, 5], [6])
        tasks = [asyncio.create_task(batcher.ask(model, question)) for question in asked]
        await asyncio.sleep(0.02)
        await batcher.stop()
        return [task.result()["twice"].tolist() for task in tasks]

    assert asyncio.run(ask()) == [[2], [4, 6], [8, 10], [12]]
    assert model.batches == [[1, 2, 3], [4, 5, 6]]


def heavy(rows, samples):
    inputs = mc_inputs(100 + np.arange(rows, dtype=np.float32)[:, None], samples, 0)
    return Question("serve_mc", inputs)


def test_a_large_question_is_computed_in_pieces_while_small_ones_come():
    model = Slow(0.02)

    async def ask():
        batcher = Batcher(Limits(max_batch_rows=256))
        await batcher.start()
        (small,) = questions([7])
        await batcher.ask(model, small, ("small", 1))
        many = heavy(64, 256)
        large = [asyncio.create_task(batcher.ask(model, many, ("large", i))) for i in range(3)]
        await asyncio.sleep(0.01)
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            assert (await batcher.ask(model, small, ("small", 1)))["twice"] == [14]
            seconds.append(time.perf_counter() - started)
        answers = await asyncio.gather(*large)
        await batcher.stop()
        return max(seconds), [answer["twice"].tolist() for answer in answers]

    longest, answers = asyncio.run(ask())
    assert longest < 0.2 and answers == [(200 + 2 * np.arange(64)).tolist()] * 3
    last = max(number for number, rows in enumerate(model.batches) if rows == [7])
    assert max(map(len, model.batches[:last])) == 4
    assert sum(map(len, model.batches)) == 6 + 3 * 64


def test_a_large_question_alone_is_computed_at_once():
    model = Slow(0.0)

    async def ask():
        batcher = Batcher(Limits(max_batch_rows=256))
        await batcher.start()
        await batcher.ask(model, heavy(64, 256))
        await batcher.stop()

    asyncio.run(ask())
    assert list(map(len, model.batches)) == [64]


def test_who_asks_most_gives_way_where_there_is_no_room():
    model = Slow(0.1)

    async def ask():
        batcher = Batcher(Limits(max_batch_rows=0, max_requests=3))
        await batcher.start()
        asked = questions([1], [2], [3], [4], [5])
        clients = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("a", 4)]
        tasks = []
        for question, client in zip(asked, clients, strict=True):
            tasks.append(asyncio.create_task(batcher.ask(model, question, client)))
            await asyncio.sleep(0.02)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.stop()
        return [type(a).__name__ if isinstance(a, Exception) else a["twice"] for a in answers]

    assert asyncio.run(ask()) == [[2], [4], "Busy", [8], "Busy"]


def test_a_failure_takes_none_along_and_who_left_is_not_computed():
    model = Slow(0.05)

    async def ask():
        batcher = Batcher(Limits(max_batch_rows=10))
        await batcher.start()
        asked = questions([1], [13], [3], [4])
        tasks = [asyncio.create_task(batcher.ask(model, asked[0]))]
        await asyncio.sleep(0.02)
        tasks += [asyncio.create_task(batcher.ask(model, question)) for question in asked[1:]]
        await asyncio.sleep(0)
        tasks[3].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.stop()
        return answers

    first, failed, third, left = asyncio.run(ask())
    assert (first["twice"], third["twice"]) == ([2], [6])
    assert isinstance(failed, RuntimeError) and isinstance(left, asyncio.CancelledError)
    assert model.batches == [[1], [13, 3], [13], [3]]


def test_a_rows_bits_do_not_depend_on_the_rows_beside_it(version):
    x = np.random.default_rng(1).normal(size=(97, WIDTH)).astype("float32")
    whole = version.run("serving_default", {"embedding": x})
    rng = np.random.default_rng(2)
    for rows in (1, 2, 3, 4, 5, 7, 8, 11, 16, 31, 33, 64):
        some = rng.permutation(len(x))[:rows]
        part = version.run("serving_default", {"embedding": x[some]})
        for name, values in whole.items():
            np.testing.assert_array_equal(part[name], values[some])


def test_concurrent_answers_are_those_asked_alone(port):
    """Deterministic ones to the bit, MC ones to rounding; and many were computed together."""
    rng = np.random.default_rng(3)
    requests = []
    for number in range(120):
        x = rng.normal(size=(int(rng.integers(1, 6)), WIDTH)).astype("float32")
        if number % 2:
            inputs = mc_inputs(x, [16, 24][number % 4 // 2], rng.integers(0, 3, len(x)))
            request = {"signature_name": "serve_mc", "instances": by_row(as_json(inputs))}
        else:
            request = {"instances": x.tolist()}
        requests.append(request)
    alone = [post(port, request) for request in requests]
    before = batches(port)
    with ThreadPoolExecutor(24) as pool:
        together = list(pool.map(lambda request: post(port, request), requests))
    assert batches(port) - before < 100
    for number, ((code, expected), (status, answer)) in enumerate(
        zip(alone, together, strict=True)
    ):
        assert code == status == 200
        if number % 2 == 0:
            assert answer == expected
            continue
        for one, other in zip(answer["predictions"], expected["predictions"], strict=True):
            assert one.pop("label") == other.pop("label")
            for name, atol in (("probabilities", 1e-6), ("age_interval_90", 1e-2)):
                np.testing.assert_allclose(one.pop(name), other.pop(name), atol=atol)
            for name in one:
                np.testing.assert_allclose(one[name], other[name], atol=1e-4)


def metrics(port):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def batches(port):
    return int(float(re.search(r"kerasmlp_batch_rows_count (\S+)", metrics(port))[1]))


def test_a_graceful_stop_loses_nothing(folder):
    """Eight kept connections ask without pause while the server is told to stop."""
    command = [fresh_python(), "bin/serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert lines[0].endswith("/v1/models/age/versions/1\n")
    url = re.fullmatch(r"ready +http://127\.0\.0\.1:(\d+)\n", lines[1])
    counts, lost = [0] * 8, []
    inputs = as_json(mc_inputs(X, 200, 0))
    body = json.dumps({"signature_name": "serve_mc", "inputs": inputs})

    def ask_on(number):
        connection = http.client.HTTPConnection("127.0.0.1", int(url[1]), timeout=60)
        connection.connect()
        while True:
            try:
                connection.request("POST", PREDICT, body)
                answer = connection.getresponse()
                content = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
                return
            if answer.status != 200 or len(content["outputs"]["label"]) != 7:
                lost.append(content)
            counts[number] += 1
            if answer.headers.get("Connection") == "close":
                connection.close()
                return

    threads = [threading.Thread(target=ask_on, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert process.wait(60) == 0 and process.stdout.read() == "stopped\n"
    assert not lost and min(counts) > 0
    with pytest.raises(OSError):
        http_request(int(url[1]), "GET", "/readyz")


def test_models_config_with_versions_and_labels(folder, tmp_path):
    shutil.copytree(folder / "1", tmp_path / "years" / "3")
    shutil.copytree(folder / "1", tmp_path / "years" / "12")
    config = tmp_path / "models.config"
    config.write_text(
        "# two models\nmodel_config_list {\n config { name: 'all' base_path: 'years'\n"
        "  model_platform: 'tensorflow' model_version_policy { all {} }\n"
        "  version_labels { key: 'stable' value: 3 } }\n"
        f" config: {{ name: 'one', base_path: '{tmp_path}/years' }}\n}}\n"
    )
    models = load_models([config])
    assert {k: (list(m.versions), m.labels) for k, m in models.items()} == {
        "all": ([3, 12], {"stable": 3}), "one": ([12], {}),
    }  # fmt: skip
    with service(models) as port:
        _, answer, _ = http_request(port, "GET", "/v1/models/all")
        states = answer["model_version_status"]
        assert [state["version"] for state in states] == ["12", "3"]
        _, answer, _ = http_request(port, "GET", "/v1/models/all/labels/stable/metadata")
        assert answer["model_spec"]["version"] == "3"
        path = "/v1/models/all/labels/stable:predict"
        assert post(port, {"inputs": X.tolist()}, path)[0] == 200
    for policy, message in (
        ("model_version_policy { specific { versions: 7 } }", "must hold version 7. Received: ver"),
        ("version_labels { key: 'a' value: 3 }", "`version_labels a` must be a version that is se"),
        ("nonsense: 1", "must be a models.config of TensorFlow Serving. Received: "),
    ):
        config.write_text(
            f"model_config_list {{ config {{ name: 'a' base_path: 'years' {policy} }} }}"
        )
        with pytest.raises(InputError, match=re.escape(message)):
            load_models([config])
    config.write_text("")
    with pytest.raises(InputError, match="must name at least one model. Received: none"):
        load_models([config])


def test_what_cannot_be_served(folder, tmp_path, capsys, monkeypatch):
    def refused(*arguments):
        assert run_command("serve", [str(a) for a in arguments]) == 2
        return capsys.readouterr().err

    assert "must be a run or hold numbered versions" in refused(tmp_path)
    (tmp_path / "1").mkdir()
    assert "must hold a saved_model.pb. Received: a folder" in refused(tmp_path)
    assert "must have a name of its own. Received: a second 'age'" in refused(folder, folder)
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"not one")
    (tmp_path / "1" / "assets").mkdir()
    (tmp_path / "1" / "assets" / "model.json").write_text('{"width": 4, "max_samples": 0}')
    assert "must be a complete SavedModel" in refused(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "`--port` must be free on 127.0.0.1" in refused(folder, "--port", port)
    assert "`--port` must be from 0 to 65535" in refused(folder, "--port", 65536)
    assert "`--host` must be an address of this" in refused(folder, "--host", "nohost.invalid")
    assert "`--max-rows` must be an integer >= 1" in refused(folder, "--max-rows", 0)
    assert "`--timeout-s` must be a finite number > 0" in refused(folder, "--timeout-s", -1)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "`aiohttp` must be installed to serve (extra `serve`)" in refused(folder)


def test_who_takes_no_answer_gets_no_further_one(version):
    """What the other side's system has no room for holds back the next question."""
    served = {"age": ServedModel("age", {1: version}, {})}
    body = json.dumps({"inputs": np.zeros((200, WIDTH)).tolist()}).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with service(served) as port, socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", port))
        one.sendall((head.encode() + body) * 3)
        time.sleep(1)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/metrics")
        rows = re.search(r"kerasmlp_rows_total{.*} (\S+)", connection.getresponse().read().decode())
        assert float(rows[1]) == 200
        connection.close()
        came = b""
        while came.count(b"HTTP/1.1 200") < 3:
            came += one.recv(1 << 16)


def test_who_dribbles_large_bodies_gives_way(models, monkeypatch):
    """Four addresses fill the room with bodies that hardly come; another's is read nevertheless."""
    monkeypatch.setattr(bodies, "_FULL_S", 0.2)
    body = json.dumps({"inputs": np.zeros((1, WIDTH)).tolist()}).encode().ljust(100_000)
    lines = f"POST {PREDICT} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", "", ""
    head = "\r\n".join(lines).encode()
    with service(models, max_body_bytes=len(body)) as port, contextlib.ExitStack() as stack:
        dribbling = []
        for number in range(2, 6):
            one = socket.create_connection(("127.0.0.1", port), 60, (f"127.0.0.{number}", 0))
            dribbling.append(stack.enter_context(one))
            one.sendall(head + body[:100])
        time.sleep(0.2)
        started = time.monotonic()
        status, *_ = http_request(port, "POST", PREDICT, body)
        assert status == 200 and time.monotonic() - started < 5
        (gone,), *_ = select.select(dribbling, [], [], 1)
        assert gone.recv(1 << 16).startswith(b"HTTP/1.1 408 ")


def test_limits_are_checked():
    with pytest.raises(InputError, match="`drain_s` must be a finite number > 0"):
        Limits(drain_s=0)
    assert Limits(max_batch_rows=0).max_batch_rows == 0
    with pytest.raises(InputError, match="must hold a saved_model.pb. Received: no such file"):
        ServedVersion("nowhere/1")
