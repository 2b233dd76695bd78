"""The clients of a served model, and a server held against the model here."""

import contextlib
import json
import re
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from test_export import WIDTH, X, make_run
from test_export_heads import ODD, make_three

from kerasmlp import InputError
from kerasmlp.cli import run_command
from kerasmlp.data.targets import Target, age_target
from kerasmlp.serving import GrpcClient, RestClient, ServerError
from kerasmlp.serving.clients.server_check import check_server
from kerasmlp.serving.export.saved_model import export_model
from kerasmlp.serving.server.served_models import load_models


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    target = age_target("age_years", "adience", by_years=True)
    return make_run(tmp_path_factory.mktemp("run"), target, dropout_rate=0.3)


@pytest.fixture(scope="module")
def models(run, tmp_path_factory):
    """A run serves as `age`, one of three labels under all of these."""
    return load_models([run, make_three(tmp_path_factory.mktemp("three"))])


THREE = "Gr__e__cm__x-gender-age"


@pytest.fixture(scope="module")
def version(models):
    return models["age"].versions[1]


@pytest.fixture(scope="module")
def url(models):
    for name in ("aiohttp", "orjson", "prometheus_client"):
        pytest.importorskip(name, reason=f"needs {name} (extra `serve`)")
    from served import service

    with service(models) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def grpc_address(models):
    """TensorFlow Serving's prediction service, as its protocol buffers define it."""
    pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")
    grpc = pytest.importorskip("grpc")
    import tensorflow as tf
    from google.protobuf.json_format import ParseDict
    from tensorflow_serving.apis import get_model_metadata_pb2 as metadata_pb2
    from tensorflow_serving.apis import predict_pb2
    from tensorflow_serving.apis import prediction_service_pb2_grpc as service_pb2

    class Service(service_pb2.PredictionServiceServicer):
        busy = 0

        def check(self, spec, context):
            if Service.busy:
                Service.busy -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
            if spec.name not in models or spec.version.value not in (0, 1):
                context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found:\n{spec.name}")

        def Predict(self, request, context):
            self.check(request.model_spec, context)
            inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
            answer = predict_pb2.PredictResponse()
            version, signature = models[request.model_spec.name].versions[1], request.model_spec
            for name, values in version.run(signature.signature_name, inputs).items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(values))
            return answer

        def GetModelMetadata(self, request, context):
            self.check(request.model_spec, context)
            assert list(request.metadata_field) == ["signature_def"]
            definitions = models[request.model_spec.name].versions[1].signature_definitions
            found = ParseDict({"signature_def": definitions}, metadata_pb2.SignatureDefMap())
            answer = metadata_pb2.GetModelMetadataResponse()
            answer.metadata["signature_def"].Pack(found)
            return answer

    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", Service
    server.stop(None)


def check_answers(client, version):
    assert client.width == WIDTH and client.ready()
    assert client.signatures()["serving_default"]["inputs"] == ("embedding",)
    numbers = {"num_samples": np.full(7, 9, np.int32), "seed": np.full(7, 2**62, np.int64)}
    for answers, outputs in (
        (client.predict(X), version.run("serving_default", {"embedding": X})),
        (
            client.predict_mc(X.astype("float64"), num_samples=9, seed=2**62),
            version.run("serve_mc", {"embedding": X, **numbers}),
        ),
    ):
        assert answers.keys() == outputs.keys()
        for name, values in outputs.items():
            if values.dtype == object:
                assert answers[name].tolist() == [v.decode() for v in values.tolist()]
            else:
                np.testing.assert_array_equal(answers[name], values)
                assert answers[name].dtype == np.float32
    checks = check_server(client, version, num_samples=20)
    assert all(good for good, _ in checks.values()), checks
    return checks


def check_three(client, version):
    checks = check_answers(client, version)
    seen = checks["deterministic, to the bit"][1]
    each = "{} differ by up to 0.0e+00".format
    assert seen == ", ".join(map(each, (ODD, "gender_probabilities", "age_probabilities")))
    answers = client.predict(X)
    assert set(answers["gender"]) <= {"male", "female"} and answers[ODD].shape == (7,)


def test_rest(url, version):
    with RestClient(url, "age") as client:
        check_answers(client, version)
    with RestClient(url + "/", "age", version=1) as client:
        assert client.predict(X[:1])["label"].shape == (1,)


def test_several_heads(url, grpc_address, models):
    """Also over gRPC, under names that are no identifiers."""
    version = models[THREE].versions[1]
    for client in (RestClient(url, THREE), GrpcClient(grpc_address[0], THREE)):
        with client:
            check_three(client, version)


def test_grpc(grpc_address, version):
    address, service = grpc_address
    with GrpcClient(address, "age") as client:
        check_answers(client, version)
        service.busy = 2
        assert client.predict(X)["label"].shape == (7,)
        service.busy = 9
        with pytest.raises(ServerError, match="must answer. Received: UNAVAILABLE, busy") as error:
            client.predict(X)
        assert error.value.code == "UNAVAILABLE"
        service.busy = 0
    with GrpcClient(address, "gender") as client:
        assert not client.ready()
        with pytest.raises(ServerError, match="NOT_FOUND, Servable not found: gender"):
            client.predict(X)
    with GrpcClient("127.0.0.1:9", "age", retries=0) as client:
        assert not client.ready()
    with pytest.raises(InputError, match="`address` must be HOST:PORT. Received: address='http:"):
        GrpcClient("http://127.0.0.1:8500", "age")


SHAPE = "must be numbers of shape (rows, 16), one row or more"


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (
            X[0],
            f"{SHAPE}. Received: embeddings='float32 of shape (16,)",
        ),
        (
            X[:0],
            f"{SHAPE}. Received: embeddings='float32 of shape (0,",
        ),
        (
            X > 0,
            f"{SHAPE}. Received: embeddings='bool of shape",
        ),
        (X[:, :3], "`embeddings` must be of width 16. Received: embeddings=3"),
        (np.full((2, WIDTH), 1e39), "must be finite in float32. Received: embeddings='NaN or inf"),
        (X * np.float32([[1], [np.nan], [1], [1], [1], [1], [1]]), "NaN or infinity in row 1"),
    ],
)
def test_embeddings_are_checked_before_they_travel(url, embeddings, message):
    with RestClient(url, "age") as client, pytest.raises(InputError, match=re.escape(message)):
        client.predict(embeddings)


def test_numbers_are_checked(url):
    with RestClient(url, "age") as client:
        for numbers, message in (
            ({"num_samples": 0}, "`num_samples` must be an integer >= 1. Received: num_samples=0"),
            ({"seed": -1}, "`seed` must be an integer >= 0. Received: seed=-1"),
            ({"seed": 2**63}, f"`seed` must be below {2**63}"),
        ):
            with pytest.raises(InputError, match=re.escape(message)):
                client.predict_mc(X, **numbers)
        with pytest.raises(ServerError, match="status 400, `num_samples` must be an in") as error:
            client.predict_mc(X, num_samples=5000)
        assert error.value.code == 400
    for arguments, message in (
        (("file:///etc/passwd", "age"), "`url` must be http://HOST:PORT or https://HOST:PORT"),
        (("127.0.0.1:8501", "age"), "`url` must be http://HOST:PORT"),
    ):
        with pytest.raises(InputError, match=message):
            RestClient(*arguments)
    with pytest.raises(InputError, match="`timeout_s` must be a finite number > 0"):
        RestClient(url, "age", timeout_s=0)
    with pytest.raises(InputError, match="`retries` must be an integer >= 0"):
        RestClient(url, "age", retries=-1)


@contextlib.contextmanager
def server_answering(*answers, pause_s=0):
    """A server that gives these, one after the other, and the last one from then on."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            time.sleep(pause_s)
            status, body = answers[min(len(asked), len(answers)) - 1]
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


LABELS = {"label": {"dtype": "DT_STRING"}, "p": {"dtype": "DT_FLOAT"}}


def metadata(width=WIDTH, outputs=LABELS):
    embedding = {"tensor_shape": {"dim": [{"size": "-1"}, {"size": str(width)}]}}
    definition = {"serving_default": {"inputs": {"embedding": embedding}, "outputs": outputs}}
    content = {"metadata": {"signature_def": {"signature_def": definition}}}
    return 200, json.dumps(content).encode()


def half_blank():
    answer = {"p": [float("nan")] * 7, "label": [""] * 6 + ["a"]}
    return json.dumps({"outputs": answer}).encode()


def test_texts_in_base64():
    """As TensorFlow Serving writes those whose label ends in `_bytes`."""
    outputs = {"a_bytes": {"dtype": "DT_STRING"}, "p": {"dtype": "DT_FLOAT"}}
    answer = {"a_bytes": [{"b64": "w6Q="}] * 7, "p": [1.5] * 7}
    content = 200, json.dumps({"outputs": answer}).encode()
    with server_answering(metadata(outputs=outputs), content) as (url, _):
        answers = RestClient(url, "a").predict(X)
    assert answers["a_bytes"].tolist() == ["ä"] * 7 and answers["p"].tolist() == [1.5] * 7


def test_a_busy_server_is_asked_again():
    busy = 503, b'{"error": "too many"}'
    with server_answering(busy, (429, b""), metadata()) as (url, asked):
        assert RestClient(url, "ä/b").width == WIDTH
        assert asked == ["/v1/models/%C3%A4%2Fb/metadata"] * 3
    with server_answering(busy) as (url, asked):
        with pytest.raises(ServerError, match="status 503, too many") as error:
            RestClient(url, "age", retries=1).predict(X)
        assert error.value.code == 503 and len(asked) == 2


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([(200, b"<html>")], "must answer as TensorFlow Serving does. Received: no JSON object"),
        ([(200, b"[]")], "Received: no JSON object"),
        ([(200, b"{}")], "Received: no metadata"),
        ([metadata(), (200, b"{}")], "Received: other outputs"),
        ([metadata(), (200, b'{"outputs": {"label": ["a"]}}')], "Received: other outputs"),
        ([metadata(), (200, b'{"outputs": {"label": 1, "p": [1, 2]}}')], "Received: other outputs"),
        ([metadata(), (200, b'{"outputs": {"p": [[1], 2]}}')], "other contents .ValueError"),
        ([metadata(), (200, b'{"outputs": {"p": [1, 2, 3, 4, 5, 6, 7]}}')], "other outputs"),
        ([metadata(), (200, half_blank())], "answers beside p that is not finite"),
        ([metadata(), (200, b"[" * 100_000)], "Received: no JSON object"),
        ([(200, b'{"metadata": {"signature_def": {"signature_def": []}}}')], "other contents"),
        ([metadata("x")], "other contents .ValueError"),
        ([(404, b"not JSON\n\nat all")], "must answer. Received: status 404, no reason"),
        ([(500, b'{"error": "two\\nlines"}')], "must answer. Received: status 500, two lines"),
        ([(302, b"")], "must answer"),
    ],
)
def test_strange_servers(answers, message):
    with server_answering(*answers) as (url, _), pytest.raises(ServerError, match=message):
        RestClient(url, "age").predict(X)


def test_a_server_that_does_not_answer():
    with server_answering(metadata(), pause_s=0.5) as (url, asked):
        client = RestClient(url, "age", timeout_s=0.1, retries=3)
        with pytest.raises(
            ServerError, match="must be a server that answers. Received: no whole answer"
        ):
            client.predict(X)
        assert len(asked) == 1  # not again: it may still be busy with the first
    client = RestClient("http://127.0.0.1:9", "age", retries=0)
    assert not client.ready()
    with pytest.raises(ServerError, match="must be a server that answers. Received: .*refused"):
        client.predict(X)


def test_a_server_that_drips():
    def drip(listener):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        url, started = f"http://127.0.0.1:{listener.getsockname()[1]}", time.monotonic()
        with pytest.raises(ServerError, match="no whole answer within 0.3 s"):
            RestClient(url, "age", timeout_s=0.3).predict(X)
        assert time.monotonic() - started < 2
        thread.join()


def test_what_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "grpc" or None)
    message = "`urllib3` must be installed for the REST client (extra `serve`)"
    with pytest.raises(InputError, match=re.escape(message)):
        RestClient("http://127.0.0.1:8501", "age")
    message = "`tensorflow-serving-api` must be installed for the gRPC client (extra `grpc`)"
    with pytest.raises(InputError, match=re.escape(message)):
        GrpcClient("127.0.0.1:8500", "age")


def test_serve_check(url, run, tmp_path, capsys):
    """The same model is equal; one of other weights, or without dropout, is told."""
    folder = tmp_path / "age"
    export_model(run, folder)
    where = f"{url}/v1/models/age/versions/1"
    assert run_command("serve-check", [where, str(folder), "--num-samples", "16"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 8 and all(line.startswith("equal  ") for line in printed)
    assert (
        "deterministic, to the bit            probabilities differ by up to 0.0e+00" in printed[1]
    )
    other = make_run(tmp_path / "run", Target("race", ("a", "b", "c")), dropout_rate=0.0)
    assert run_command("serve-check", [where, str(other)]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("NOT EQUAL") == 3
    assert "must answer as the model here. Received: other answers: signatures; " in captured.err
    shutil.copytree(folder / "1", tmp_path / "later" / "2")
    for arguments, message in (
        ((url, folder), "`url` must be http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME"),
        ((where, tmp_path / "none"), "must be a run or hold numbered versions"),
        ((f"{url}/v1/models/no", folder), "must answer. Received: status 404, there is no model"),
        ((where, tmp_path / "later"), "must hold version 1. Received: version 2"),
        ((where, folder, "--num-samples", "0"), "`--num-samples` must be an integer >= 1"),
    ):
        assert run_command("serve-check", [str(a) for a in arguments]) == 2
        assert message in capsys.readouterr().err


def test_serve_check_over_grpc(grpc_address, run, capsys):
    url = f"grpc://{grpc_address[0]}/age"
    assert run_command("serve-check", [url, str(run), "--num-samples", "8"]) == 0
    assert "NOT EQUAL" not in capsys.readouterr().out
