"""The Open Inference Protocol over gRPC, asked by messages of our own, by Triton's client and
KServe's, and by hostile ones."""

import contextlib
import json
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
from data_sets import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_export import WIDTH, X, make_run

pytest.importorskip("aiohttp", reason="needs aiohttp (extra `serve`)")
pytest.importorskip("orjson", reason="needs orjson (extra `serve`)")
pytest.importorskip("prometheus_client", reason="needs prometheus_client (extra `serve`)")
pytest.importorskip("grpc", reason="needs grpcio (extra `grpc`)")
import grpc
from forked import fresh_python
from http2_calls import calls
from served import service
from test_open_inference import ask as ask_http
from test_open_inference import check_same, mc_inputs, tensor

from kerasmlp import InputError
from kerasmlp.cli import run_command
from kerasmlp.data.targets import age_target
from kerasmlp.serving.export.saved_model import export_model
from kerasmlp.serving.server import grpc_service, http_server
from kerasmlp.serving.server.grpc_messages import SERVICE, messages, parse, parts_of
from kerasmlp.serving.server.grpc_tensors import MessageForm, decode_message, encode_message
from kerasmlp.serving.server.json_process import JsonProcess
from kerasmlp.serving.server.served_models import load_models
from kerasmlp.serving.server.version_watcher import VersionWatcher

KINDS = {"FP32": "<f4", "INT32": "<i4", "INT64": "<i8"}
OF_NAME = {"embedding": "FP32", "num_samples": "INT32", "seed": "INT64"}
CONTENTS = {"FP32": "fp32_contents", "INT32": "int_contents", "INT64": "int64_contents"}
FORM = MessageForm(
    {"serving_default": ("embedding",), "serve_mc": ("embedding", "num_samples", "seed")},
    WIDTH, max_rows=200, max_samples=64, model="age",
    outputs={"serving_default": ["label", "p"], "serve_mc": ["label", "p", "std"]},
)  # fmt: skip
CODES = grpc.StatusCode


@pytest.fixture(scope="module")
def ports(models):
    """Of HTTP and of gRPC."""
    with service(models, grpc_port=0, max_rows=200, max_body_bytes=1 << 20) as ports:
        yield ports


@pytest.fixture(scope="module")
def channel(ports):
    with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
        yield channel


def call(channel, method, body=b"", **how):
    """The answer's bytes, or the status and the sentence."""
    try:
        return channel.unary_unary(f"/{SERVICE}/{method}")(body, timeout=60, **how)
    except grpc.RpcError as error:
        return error.code(), error.details()


def told(channel, method, **values):
    answer = call(channel, method, messages()[f"{method}Request"](**values).SerializeToString())
    if isinstance(answer, tuple):
        return answer
    return parse(f"{method}Response", answer)


def values_of_parameters(given):
    kinds = {str: "string_param", bool: "bool_param", int: "int64_param", float: "double_param"}
    return {k: {kinds[type(v)]: v} if v is not None else {} for k, v in given.items()}


def request(arrays, raw, *, outputs=(), parameters=(), **more):
    """A ModelInferRequest of arrays by name."""
    inputs, pieces = [], []
    for name, values in arrays.items():
        values = np.asarray(values, KINDS[OF_NAME[name]])
        one = {"name": name, "datatype": OF_NAME[name], "shape": values.shape}
        if raw:
            pieces.append(values.tobytes())
        else:
            one["contents"] = {CONTENTS[OF_NAME[name]]: values.ravel().tolist()}
        inputs.append(one)
    more = {"model_name": "age"} | more
    about = {"parameters": values_of_parameters(dict(parameters)), "raw_input_contents": pieces}
    return messages()["ModelInferRequest"](inputs=inputs, outputs=outputs, **about, **more)


def read(answer):
    """Outputs as arrays, as the specification has them, by other means than the server's."""
    outputs, raw = {}, answer.raw_output_contents
    assert len(raw) in (0, len(answer.outputs))
    for i, one in enumerate(answer.outputs):
        assert not (raw and one.HasField("contents"))
        if one.datatype == "BYTES":
            part, texts = raw[i] if raw else b"", [] if raw else [*one.contents.bytes_contents]
            while part:
                length = int.from_bytes(part[:4], "little")
                texts, part = [*texts, part[4 : 4 + length]], part[4 + length :]
            values = np.array(texts, object)
        elif raw:
            values = np.frombuffer(raw[i], KINDS[one.datatype])
        else:
            values = np.array(getattr(one.contents, CONTENTS[one.datatype]), KINDS[one.datatype])
        outputs[one.name] = values.reshape(one.shape)
    return outputs


def ask(channel, arrays, raw=True, **more):
    answer = call(channel, "ModelInfer", request(arrays, raw, **more).SerializeToString())
    return answer if isinstance(answer, tuple) else parse("ModelInferResponse", answer)


def described(descriptor):
    """Fields by number, with all that decides how they are written."""
    return {
        field.number: (
            field.name,
            field.type,
            field.is_repeated,
            field.containing_oneof and field.containing_oneof.name,
            field.message_type and field.message_type.full_name,
            bool(field.message_type) and field.message_type.GetOptions().map_entry,
        )
        for field in descriptor.fields
    }


@pytest.mark.parametrize("name", [*messages()])
def test_messages_are_those_of_tritonclient(name):
    pb2 = pytest.importorskip("tritonclient.grpc.service_pb2", reason="needs tritonclient[grpc]")
    theirs = pb2.DESCRIPTOR.pool.FindMessageTypeByName(f"inference.{name}")
    ours = messages()[name].DESCRIPTOR
    assert described(ours) == described(theirs) and ours is not theirs
    for entry in ours.nested_types:
        assert described(entry) == described(theirs.nested_types_by_name[entry.name])
    assert pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name == SERVICE


@pytest.mark.parametrize("raw", [True, False])
def test_answers_are_those_of_the_model_and_of_http(channel, ports, version, raw):
    expected = version.run("serving_default", {"embedding": X})
    answer = ask(channel, {"embedding": X}, raw, id="7")
    assert (answer.model_name, answer.model_version, answer.id) == ("age", "1", "7")
    assert bool(answer.raw_output_contents) == raw and not answer.parameters
    check_same(read(answer), expected)
    check_same(read(answer), ask_http(ports[0], tensor("embedding", X, raw))[1])
    mc = mc_inputs(X, [3, 9, 1, 3, 64, 3, 2], [0, 1, 2, 3, 4, 5, 2**63 - 1])
    expected = version.run("serve_mc", mc)
    answer = ask(channel, mc, raw, model_version="1", parameters={"signature_name": "serve_mc"})
    check_same(read(answer), expected)
    tensors = [tensor(name, values, raw) for name, values in mc.items()]
    check_same(read(answer), ask_http(ports[0], *tensors)[1])
    one_seed = {"seed": [5], "num_samples": [9], "embedding": X}
    check_same(read(ask(channel, one_seed, raw)), version.run("serve_mc", mc_inputs(X, 9, 5)))


def test_outputs_are_chosen_and_written_as_asked(channel, version):
    expected = version.run("serving_default", {"embedding": X})
    for raw, parameters in ((True, {}), (False, {"binary_data_output": True})):
        wanted = [{"name": "label"}, {"name": "probabilities"}]
        answer = ask(channel, {"embedding": X}, raw, outputs=wanted, parameters=parameters)
        assert [one.name for one in answer.outputs] == ["label", "probabilities"]
        assert len(answer.raw_output_contents) == 2 and not answer.id
        check_same(read(answer), {k: expected[k] for k in ("label", "probabilities")})
    answer = ask(channel, {"embedding": X}, True, parameters={"binary_data_output": False})
    assert not answer.raw_output_contents
    check_same(read(answer), expected)
    binary = {"parameters": values_of_parameters({"binary_data": True})}
    wanted = [{"name": "label", **binary}, {"name": "probabilities"}]
    code, sentence = ask(channel, {"embedding": X}, False, outputs=wanted)
    assert code == CODES.INVALID_ARGUMENT and "`binary_data` all alike" in sentence


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u8", "b1", "O"])
@pytest.mark.parametrize("raw", [True, False])
def test_outputs_of_any_type(kind, raw):
    """As other models than ours may have; half floats have no contents of their own."""
    values = np.arange(6).reshape(2, 3)
    values = values.astype(str).astype("S").astype(object) if kind == "O" else values.astype(kind)
    wanted = {"id": "", "outputs": [["a", raw]]}
    answer = parse("ModelInferResponse", encode_message({"a": values}, wanted, model_name="m"))
    (one,), (given,) = answer.outputs, (answer.raw_output_contents or [None])
    assert [*one.shape] == [2, 3] and (given is not None) == (raw or kind == "f2")
    if given is None:
        (_, contents), *others = one.contents.ListFields()
        assert not others and [*contents] == values.ravel().tolist()
    elif kind != "O":
        assert given == values.tobytes()


def test_the_other_methods(channel):
    assert told(channel, "ServerLive").live and told(channel, "ServerReady").ready
    assert told(channel, "ModelReady", name="age").ready
    assert told(channel, "ModelReady", name="age", version="1").ready
    assert told(channel, "ServerMetadata").name == "kerasmlp"
    about = told(channel, "ModelMetadata", name="age")
    assert ([*about.versions], about.platform) == (["1"], "tensorflow_savedmodel")
    assert [(t.name, t.datatype, [*t.shape]) for t in about.inputs] == [
        ("embedding", "FP32", [-1, WIDTH])
    ]
    assert {"label", "age_years"} <= {one.name for one in about.outputs}
    for method in ("ModelReady", "ModelMetadata"):
        assert told(channel, method, name="none") == (
            CODES.NOT_FOUND,
            "there is no model 'none'",
        )
        found = told(channel, method, name="age", version="2")
        assert found == (CODES.NOT_FOUND, "age has no version '2' that is served")
        code, sentence = call(channel, method, b"\xff")
        assert code == CODES.INVALID_ARGUMENT and f"must be a {method}Request" in sentence
    assert told(channel, "ModelReady", name="a" * 5000) == (
        CODES.RESOURCE_EXHAUSTED,
        "the message is too large: at most 4096 bytes",
    )
    for method in ("ModelConfig", "RepositoryModelUnload", "SystemSharedMemoryRegister", "x"):
        assert call(channel, method)[0] == CODES.UNIMPLEMENTED
    stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([b""]), timeout=60)
    with pytest.raises(grpc.RpcError) as refused:
        next(stream)
    assert refused.value.code() == CODES.UNIMPLEMENTED


def test_tritonclient(ports, version):
    triton = pytest.importorskip("tritonclient.grpc", reason="needs tritonclient[grpc]")
    from tritonclient.utils import InferenceServerException

    with triton.InferenceServerClient(f"127.0.0.1:{ports[1]}") as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("age") and client.is_model_ready("age", "1")
        assert client.get_server_metadata(as_json=True)["name"] == "kerasmlp"
        assert client.get_model_metadata("age").inputs[0].datatype == "FP32"
        mc = mc_inputs(X, 9, 5)
        for signature, arrays in (("serving_default", {"embedding": X}), ("serve_mc", mc)):
            expected = version.run(signature, arrays)
            inputs = [
                triton.InferInput(name, values.shape, OF_NAME[name]).set_data_from_numpy(
                    np.ascontiguousarray(values)
                )
                for name, values in arrays.items()
            ]
            wanted = [triton.InferRequestedOutput(name) for name in sorted(expected)]
            for outputs in (None, wanted):
                answer = client.infer(
                    "age", inputs, outputs=outputs, request_id="7",
                    parameters={"signature_name": signature},
                )  # fmt: skip
                check_same({k: answer.as_numpy(k) for k in expected}, expected)
                assert answer.get_response().id == "7"
        with pytest.raises(InferenceServerException, match="must hold only signature_name, bin"):
            client.infer("age", inputs, priority=1)
        with pytest.raises(InferenceServerException, match="there is no model 'none'"):
            client.infer("none", inputs)


@pytest.mark.parametrize("raw", [True, False])
def test_large_messages_are_answered_alike(models, version, raw):
    """Those that take long to read are read in a process of its own."""
    x = np.random.default_rng(0).standard_normal((1500, WIDTH), np.float32)
    with (
        service(models, max_rows=2000, grpc_port=0) as (_, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        answer = ask(channel, {"embedding": x}, raw, id="a" * 100_000)
        code, sentence = ask(channel, {"embedding": x * np.float32(np.nan)}, raw)
    check_same(read(answer), version.run("serving_default", {"embedding": x}))
    assert code == CODES.INVALID_ARGUMENT
    assert sentence == "`embedding` must hold finite numbers. Received: NaN or infinity"


def test_the_process_that_decodes_large_bodies_reads_messages_too():
    process = JsonProcess()
    body = request(mc_inputs(X, 4, 0), raw=False, id="a").SerializeToString()
    here, there = decode_message(body, FORM), process.decode(body, FORM)
    process.stop()
    assert here.signature == there.signature and here.wanted == dict(there.wanted)
    check_same({**here.inputs}, {**there.inputs})


def changed(raw=False, **values):
    """A good request but for its tensor."""
    made = request({"embedding": X}, raw)
    one = made.inputs[0]
    for name, value in values.items():
        one.ClearField(name)
        if name == "shape":
            one.shape.extend(value)
        elif name == "contents":
            one.contents.CopyFrom(value)
        else:
            setattr(one, name, value)
    return made


def contents(**values):
    return messages()["InferTensorContents"](**values)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (request({}, True), "`inputs` must be a list of at least one tensor. Received: []"),
        (changed(datatype="FP64"), "`embedding` must have the contents of its datatype, FP64. Rec"),
        (changed(True, datatype="FP64"), "`embedding` must be of datatype FP32. Received: 'FP64'"),
        (changed(name="x"), "`inputs` must be embedding of serving_default. Received: ['x']"),
        (changed(contents=contents()), "must have 112 numbers, as its shape says. Received: 0"),
        (
            changed(contents=contents(int_contents=[1] * 112)),
            "`embedding` must have the contents of its datatype, FP32. Received: ['int_contents']",
        ),
        (
            changed(contents=contents(fp32_contents=[np.nan] * 112)),
            "`embedding` must hold finite numbers. Received: NaN or infinity",
        ),
        (
            changed(True, contents=contents(fp32_contents=[0.5])),
            "`embedding` must have raw contents only, as others have some. Received: ['fp32_conte",
        ),
        (changed(True, shape=[-7, 16]), "`embedding.shape` must be a list of integers >= 0. Rece"),
        (changed(True, shape=[2**62, 16]), "`embedding` must hold at most 200 rows. Received: 46"),
        (changed(True, shape=[6, 16]), "must have 384 bytes, as its shape says. Received: 448"),
        (
            request({"embedding": X}, True, parameters={"priority": 1}),
            "`parameters` must hold only signature_name, binary_data_output, content_type. Receive",
        ),
        (
            request({"embedding": X}, True, parameters={"signature_name": None}),
            "`signature_name` must be one of serving_default, serve_mc. Received: None",
        ),
        (
            request({"embedding": X}, True, outputs=[{"name": "age"}]),
            "`outputs` must be among label, p. Received: 'age'",
        ),
        (
            request({"embedding": X, "num_samples": [65], "seed": [0]}, True),
            "`num_samples` must be an integer from 1 to 64. Received: 65",
        ),
        (
            messages()["ModelInferRequest"](
                inputs=[{"name": "embedding", "datatype": "FP32", "shape": [7, 16]}],
                raw_input_contents=[X.tobytes()] * 2,
            ),
            "`raw_input_contents` must be one for each of the inputs, or none. Received: 2 for 1",
        ),
    ],
)
def test_refused_messages(made, message):
    with pytest.raises(InputError) as error:
        decode_message(made.SerializeToString(), FORM)
    assert message in str(error.value)


def test_the_size_that_an_input_names_is_that_of_its_bytes():
    """As KServe's client names it."""
    made = request({"embedding": X}, True)
    made.inputs[0].parameters["binary_data_size"].int64_param = 448
    assert decode_message(made.SerializeToString(), FORM).rows == 7
    made.inputs[0].parameters["binary_data_size"].int64_param = 447
    with pytest.raises(InputError, match="`embedding.binary_data_size` must be the bytes of its"):
        decode_message(made.SerializeToString(), FORM)
    made = request({"embedding": X}, True).SerializeToString()
    for more in (b"\x42\x00", b"\x2a\x02\x32\x00"):  # a field, and one of a tensor, unknown
        with pytest.raises(InputError, match=r"must (hold only what|be one for each|be a Model)"):
            decode_message(made + more, FORM)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5),
    raw=st.booleans(),
    order=st.permutations(["embedding", "num_samples", "seed"]),
    seed=st.integers(0, 2**63 - 1),
    values=st.data(),
)
def test_what_is_sent_is_what_is_computed(rows, raw, order, seed, values):
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    count = rows * WIDTH
    x = np.array(values.draw(st.lists(floats, min_size=count, max_size=count)), np.float32)
    arrays = {"embedding": x.reshape(rows, WIDTH), "num_samples": [9], "seed": [seed] * rows}
    body = request({k: arrays[k] for k in order}, raw, model_version="3").SerializeToString()
    name, number, rest = parts_of(body)
    pieces = sum(np.asarray(v, KINDS[OF_NAME[k]]).nbytes for k, v in arrays.items())
    assert (name, number, rest) == ("age", "3", len(body) - (pieces if raw else 0))
    question = decode_message(body, FORM)
    assert question.signature == "serve_mc" and question.passes == 9 * rows
    np.testing.assert_array_equal(question.inputs["embedding"], arrays["embedding"])
    assert question.inputs["seed"].tolist() == [seed] * rows
    assert question.wanted == {"id": "", "outputs": [[k, raw] for k in ("label", "p", "std")]}


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 900), st.binary(max_size=4))
def test_any_bytes_are_one_sentence(anything, at, patch):
    good = request({"embedding": X}, True).SerializeToString()
    for body in (anything, good[:at], good[:at] + patch + good[at + len(patch) :]):
        for reads in (parts_of, lambda body: decode_message(body, FORM)):
            try:
                reads(body)
            except InputError as error:
                assert "\n" not in str(error) and len(str(error)) < 300


def hostile_messages(count):
    """The same ones every time."""
    rng = random.Random(0)
    good = request({"embedding": X}, True)
    shapes = [[2**62, 16], [7, -(2**63)], [-7, -16], [7, 16, 1], [], [112], [0, 16], [1] * 1000]
    kinds = ["FP64", "FP16", "BF16", "BYTES", "INT8", "BOOL", "fp32", "", "FP32\0", "🙂" * 50]
    parameters = [{"x": 1}, {"priority": 1}, {"signature_name": "__init"}, {"signature_name": 1}]
    parameters += [{"signature_name": None}, {"binary_data_output": "x"}, {"🙂" * 900: 1.5}]
    parameters += [{"binary_data_output": 2**62}, {"timeout": 1}, {"sequence_id": 7}]

    def pieces(*parts):
        made = request({"embedding": X}, True)
        made.ClearField("raw_input_contents")
        made.raw_input_contents.extend(parts)
        return made

    def with_nan(raw):
        values = X.copy()
        values[rng.randrange(7), rng.randrange(16)] = rng.choice([np.nan, np.inf, -np.inf])
        return request({"embedding": values}, raw)

    def of_input(name, value):
        made = request({"embedding": X}, True)
        made.inputs[0].parameters[name].int64_param = value
        return made

    kinds_of = [
        lambda: changed(rng.random() < 0.5, shape=rng.choice(shapes)),
        lambda: changed(rng.random() < 0.5, datatype=rng.choice(kinds)),
        lambda: changed(True, name=rng.choice(["", "x", "embedding\0", "a" * 100_000])),
        lambda: changed(contents=contents(fp32_contents=[0.5] * rng.choice([0, 1, 111, 50_000]))),
        lambda: changed(contents=contents(bytes_contents=[b"\xff" * 9] * 112)),
        lambda: pieces(X.tobytes()[: rng.randrange(448)]),
        lambda: pieces(X.tobytes() + rng.randbytes(rng.randrange(1, 900))),
        lambda: pieces(*[X.tobytes()] * rng.choice([2, 3, 100])),
        lambda: with_nan(True),
        lambda: with_nan(False),
        lambda: request({"embedding": X}, True, parameters=rng.choice(parameters)),
        lambda: request({"embedding": X}, True, outputs=[{"name": rng.choice(["", "🙂" * 99])}]),
        lambda: request({"embedding": X}, True, outputs=[{"name": "label"}] * 2),
        lambda: request({"embedding": X, "seed": [-1], "num_samples": [3]}, rng.random() < 0.5),
        lambda: request({"embedding": X, "seed": [1] * 3, "num_samples": [3]}, True),
        lambda: request({"embedding": X, "seed": [1], "num_samples": [5000]}, True),
        lambda: request({"embedding": np.zeros((300, WIDTH))}, True),
        lambda: of_input(rng.choice(["binary_data_size", "shared_memory_offset"]), 2**40),
        lambda: messages()["ModelInferRequest"](
            model_name="age", inputs=[good.inputs[0]] * rng.choice([2, 400])
        ),
        lambda: good.SerializeToString()[: rng.randrange(5, 470)],
        lambda: good.SerializeToString() + rng.choice([b"\x42\x01a", b"\x3a", b"\xff" * 20]),
        lambda: rng.randbytes(rng.randrange(2000)),
        lambda: b"\x2a\x00" * rng.choice([1, 500, 40_000, 500_000]),
        lambda: b"\x3a\x00" * rng.choice([1, 500, 40_000, 500_000]),
        lambda: b"\x0a\x05age\xff\xfe" + good.SerializeToString(),
        lambda: bytes(rng.choice([1, 2 << 20])),
        lambda: request({"embedding": X}, True, model_name=rng.choice(["", "none", "../age"])),
        lambda: request({"embedding": X}, True, model_version=rng.choice(["2", "-1", "9" * 5000])),
    ]  # fmt: skip
    for number in range(count):
        made = kinds_of[number % len(kinds_of)]()
        yield made if isinstance(made, bytes) else made.SerializeToString()


def test_hostile_messages_are_refused_and_forgotten(channel, ports):
    before = ask(channel, {"embedding": X})
    codes, started = {}, time.monotonic()
    for number, body in enumerate(hostile_messages(224)):
        answer = call(channel, "ModelInfer", body)
        assert isinstance(answer, tuple), (number, body[:100])
        code, sentence = answer
        assert 10 < len(sentence) < 500 and "\n" not in sentence and "Traceback" not in sentence
        codes[code] = codes.get(code, 0) + 1
    few = {CODES.NOT_FOUND: 16, CODES.RESOURCE_EXHAUSTED: 4}
    assert codes.keys() == {CODES.INVALID_ARGUMENT, *few}, codes
    assert codes[CODES.INVALID_ARGUMENT] > 180 and all(codes[k] >= n // 2 for k, n in few.items())
    assert time.monotonic() - started < 30
    for how in (grpc.Compression.Gzip, grpc.Compression.Deflate):  # it may hold any number of bytes
        code, _ = call(channel, "ModelInfer", bytes(1000), compression=how)
        assert code == CODES.UNIMPLEMENTED
    with socket.create_connection(("127.0.0.1", ports[1])) as other:
        other.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 9)
    assert ask(channel, {"embedding": X}) == before and told(channel, "ServerReady").ready


def test_what_does_not_come_or_is_not_taken_in_time(models):
    slow = threading.Event()

    def never():
        slow.wait(60)
        yield from ()

    limits = {"timeout_s": 0.3, "max_requests": 2}
    with (
        service(models, grpc_port=0, **limits) as (_, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        infer = channel.stream_unary(f"/{SERVICE}/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            infer(never(), timeout=60)
        assert refused.value.code() == CODES.DEADLINE_EXCEEDED
        assert refused.value.details() == "the message did not arrive in time"
        slow.set()
        with pytest.raises(grpc.RpcError) as refused:
            infer(iter(()), timeout=60)
        assert refused.value.details() == "the request must have a message"
        check_same(read(ask(channel, {"embedding": X})), read(ask(channel, {"embedding": X})))


def counters(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines()]
    return {name: float(value) for name, value in lines if name[0] != "#"}


@contextlib.contextmanager
def held(version):
    """Yields what tells that the model is asked, and what lets it answer."""
    begun, go_on, run = threading.Event(), threading.Event(), version.run

    def slowly(*asked):
        begun.set()
        go_on.wait(60)
        return run(*asked)

    version.run = slowly
    try:
        yield begun, go_on
    finally:
        go_on.set()
        del version.run


def counted(port, code, model="", signature=""):
    labels = f'code="{code}",model="{model}",signature="{signature}"'
    return counters(port).get(f"kerasmlp_answers_total{{{labels}}}", 0)


def wait_until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


OF_AGE = ("age", "serving_default")


def test_answers_are_counted_and_too_many_refused(models, version):
    answers = []
    with (
        service(models, grpc_port=0, max_requests=1, max_body_bytes=1 << 16) as (http, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        grpc.insecure_channel(f"localhost:{port}") as other,
    ):
        with held(version) as (begun, go_on):
            first = threading.Thread(target=lambda: answers.append(ask(channel, {"embedding": X})))
            first.start()
            assert begun.wait(60)
            code, sentence = ask(other, {"embedding": X})
            assert code == CODES.RESOURCE_EXHAUSTED
            assert sentence == "too many requests at one time, try again"
            assert told(other, "ServerLive").live
            go_on.set()
            first.join()
        ask(channel, {"embedding": X}, model_name="none")
        call(channel, "ModelInfer", b"x")
        assert call(channel, "ModelInfer", bytes(1 << 17))[0] == CODES.RESOURCE_EXHAUSTED
        # gRPC ends it, and tells the service as little as of who hangs up.
        wait_until(lambda: counted(http, 400) + counted(http, 499) == 2)
        assert counted(http, 400) >= 1 == counted(http, 404)
        for code in (200, 503):
            assert counted(http, code, *OF_AGE) == 1
        rows = counters(http)['kerasmlp_rows_total{model="age",signature="serving_default"}']
    assert rows == len(X)
    check_same(read(answers[0]), version.run("serving_default", {"embedding": X}))


@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_calls_without_a_message_shut_nobody_out(models, version, method, address):
    with (
        service(models, grpc_port=0, max_requests=8) as (http, port),
        contextlib.ExitStack() as stack,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        silent = [stack.enter_context(calls(port, address, method, 8)) for _ in range(5)]
        for one in silent[:4]:
            assert one.wait_for_ends(8) == 0
        assert told(channel, "ServerLive").live
        expected = version.run("serving_default", {"embedding": X})
        check_same(read(ask(channel, {"embedding": X})), expected)
        assert counted(http, 200, *OF_AGE) == 1
        if method == "ModelInfer":
            assert counted(http, 503) == 33  # and one for the others


def test_answers_that_nobody_takes_shut_nobody_out(models, monkeypatch, caplog):
    monkeypatch.setattr(grpc_service, "_OLD_MS", 1000)
    with (
        service(models, grpc_port=0, max_requests=8, timeout_s=0.1) as (_, port),
        contextlib.ExitStack() as stack,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):

        def ask_from_there(**how):
            asked = calls(port, "127.0.0.2", "ServerLive", 8, b"", **how)
            return stack.enter_context(asked)

        stuck = [ask_from_there(takes_answers=False) for _ in range(5)]
        assert told(channel, "ServerLive").live
        assert ask_from_there().wait_for_ends(8) == 0
        assert told(channel, "ServerLive").live
        for one in stuck:
            one.wait_for_close()  # as it is too old
        assert ask_from_there().wait_for_ends(8) == 8
    assert not caplog.records


def test_of_whoever_asks_most_the_last_question_gives_way(models, version):
    body, answers = request({"embedding": X}, True).SerializeToString(), []
    with (
        service(models, grpc_port=0, max_requests=2) as (http, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        with (
            held(version) as (begun, go_on),
            calls(port, "127.0.0.2", "ModelInfer", 2, body) as many,
        ):
            assert begun.wait(60)
            wait_until(lambda: counters(http)["kerasmlp_active_requests"] == 2)
            few = threading.Thread(target=lambda: answers.append(ask(channel, {"embedding": X})))
            few.start()
            assert many.wait_for_ends(1) == 0
            assert counted(http, 503, *OF_AGE) == 1
            go_on.set()
            assert many.wait_for_ends(2) == 1
            few.join()
        assert counted(http, 200, *OF_AGE) == 2
    check_same(read(answers[0]), version.run("serving_default", {"embedding": X}))


def test_whoever_leaves_is_not_computed(models, version):
    body = request({"embedding": X}, True).SerializeToString()
    with (
        service(models, grpc_port=0, max_requests=2) as (http, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        with held(version) as (begun, go_on):
            first = infer.future(body)
            assert begun.wait(60)
            with pytest.raises(grpc.RpcError) as late:
                infer(body, timeout=0.2)
            assert late.value.code() == CODES.DEADLINE_EXCEEDED
            first.cancel()
            wait_until(lambda: counted(http, 499, *OF_AGE) == 2)
            both = [infer.future(body) for _ in range(2)]  # there is room again
            wait_until(lambda: counters(http)["kerasmlp_active_requests"] == 2)
            go_on.set()
            expected = version.run("serving_default", {"embedding": X})
            for one in both:
                check_same(read(parse("ModelInferResponse", one.result(60))), expected)
        assert counted(http, 200, *OF_AGE) == 2 and not counted(http, 503, *OF_AGE)


def test_a_model_that_fails_is_told_in_one_sentence(channel, ports, version, caplog):
    def fails(*asked):
        raise RuntimeError("secret\nlines")

    version.run = fails
    try:
        answer = ask(channel, {"embedding": X})
    finally:
        del version.run
    assert answer == (CODES.INTERNAL, "the request could not be computed")
    assert caplog.messages == ["a request could not be computed: RuntimeError"]
    assert counted(ports[0], 500, *OF_AGE) == 1


def test_idle_connections_are_closed(models, monkeypatch):
    monkeypatch.setattr(grpc_service, "KEPT_S", 0.2)
    states, idle = [], threading.Event()

    def changed(state):
        states.append(state)
        if state == grpc.ChannelConnectivity.IDLE and len(states) > 1:
            idle.set()

    with (
        service(models, grpc_port=0) as (_, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        channel.subscribe(changed)
        assert told(channel, "ServerLive").live
        assert idle.wait(10), states
        assert told(channel, "ServerLive").live


def test_files_are_counted_for_both_ports():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        for ports, files in ((1, 300), (2, 328)):
            assert http_server._room_for(100, ports) == 100
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (files, hard)
        assert http_server._room_for(hard, 2) == (hard - 128) // 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_version_is_replaced_while_it_is_asked(folder, tmp_path):
    """Each answer is whole, of the version that it names; none is lost."""
    target = age_target("age_years", "adience", by_years=True)
    run = make_run(tmp_path / "run", target, num_blocks=2, dropout_rate=0.3)
    export_model(run, tmp_path / "second" / "age")
    shutil.copytree(folder, tmp_path / "age")
    models = load_models([tmp_path / "age"])
    watcher = VersionWatcher(models, [tmp_path / "age"])
    watcher.look()
    expected = {"1": models["age"].versions[1].run("serving_default", {"embedding": X})}
    answers, stop = [], threading.Event()
    with (
        service(models, grpc_port=0) as (_, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):

        def ask_on():
            while not stop.is_set():
                answers.append(ask(channel, {"embedding": X}))

        thread = threading.Thread(target=ask_on)
        thread.start()
        shutil.copytree(tmp_path / "second" / "age" / "1", tmp_path / "age" / "2")
        while list(models["age"].versions) != [2]:
            watcher.look()
        expected["2"] = models["age"].versions[2].run("serving_default", {"embedding": X})
        count = len(answers)
        while len(answers) < count + 3:
            time.sleep(0.01)
        stop.set()
        thread.join()
        gone = ask(channel, {"embedding": X}, model_version="1")
        assert gone == (CODES.NOT_FOUND, "age has no version '1' that is served")
    numbers = [answer.model_version for answer in answers]
    assert numbers == sorted(numbers) and set(numbers) == {"1", "2"}
    for answer in answers:
        check_same(read(answer), expected[answer.model_version])


def test_whoever_was_taken_is_answered_before_it_stops(models, version):
    answers, stack = [], service(models, grpc_port=0)
    _, port = stack.__enter__()
    with (
        held(version) as (begun, go_on),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        asking = threading.Thread(target=lambda: answers.append(ask(channel, {"embedding": X})))
        asking.start()
        assert begun.wait(60)
        ends = threading.Thread(target=lambda: stack.__exit__(None, None, None))
        ends.start()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                break  # it takes nobody new
            time.sleep(0.02)
        assert not answers
        go_on.set()
        asking.join()
        ends.join()
    check_same(read(answers[0]), version.run("serving_default", {"embedding": X}))


KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

http, grpc, binary = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "binary"
arrays = {k: np.array(v, kind) for k, (v, kind) in json.load(sys.stdin).items()}
kinds = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}


def asked():
    inputs = []
    for name, values in arrays.items():
        one = InferInput(name, list(values.shape), kinds[str(values.dtype)])
        one.set_data_from_numpy(values, binary_data=binary)
        inputs.append(one)
    return InferRequest(model_name="age", infer_inputs=inputs, request_id="7")


def told(answer):
    assert (answer.id, answer.model_name) == ("7", "age")
    assert answer.model_version in ("1", None)  # its REST client does not read it
    outputs = {}
    for one in answer.outputs:
        values = one.as_numpy()
        texts = values.dtype == object
        plain = [v.decode() if isinstance(v, bytes) else v for v in values.ravel().tolist()]
        outputs[one.name] = [plain, "text" if texts else str(values.dtype), list(values.shape)]
    return outputs


async def main():
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    async with InferenceGRPCClient(f"127.0.0.1:{grpc}") as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("age")
        of_grpc = told(await client.infer(asked()))
    url = f"http://127.0.0.1:{http}"
    assert await rest.is_server_ready(url) and await rest.is_server_live(url)
    assert await rest.is_model_ready(url, "age")
    of_rest = told(await rest.infer(url, asked(), model_name="age"))
    await rest.close()
    print(json.dumps({"grpc": of_grpc, "rest": of_rest}))


asyncio.run(main())
"""


@pytest.mark.parametrize("binary", ["binary", "plain"])
def test_kserve(ports, version, binary):
    """By its SDK, in a process of its own: in this Python, or the one that KSERVE_PYTHON names."""
    other = os.environ.get("KSERVE_PYTHON")
    if other is None:
        pytest.importorskip("kserve", reason="needs kserve")
    mc = mc_inputs(X, 9, 5)
    command = [other or sys.executable, "-c", KSERVE, *map(str, ports), binary]
    plain = json.dumps({k: [v.tolist(), str(v.dtype)] for k, v in mc.items()})
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, input=plain, text=True, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = version.run("serve_mc", mc)
    for outputs in json.loads(done.stdout.splitlines()[-1]).values():
        assert outputs.keys() == expected.keys()
        for name, (values, kind, shape) in outputs.items():
            ours = expected[name]
            if ours.dtype == object:
                assert values == [v.decode() for v in ours.ravel()] and kind == "text"
            else:
                np.testing.assert_array_equal(np.array(values, kind).reshape(shape), ours)


@pytest.mark.slow
def test_the_command_serves_both_until_it_is_told_to_stop(folder):
    command = [fresh_python(), ROOT / "bin" / "serve", folder, "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = {}
        for line in process.stdout:
            name, _, value = line.partition(" ")
            lines[name] = value.strip()
            if name == "ready":
                break
        with grpc.insecure_channel(lines["gRPC"]) as channel:
            answer = ask(channel, {"embedding": X})
            assert answer.model_version == "1" and len(answer.outputs) == 3
            call(channel, "ModelInfer", bytes(1000), compression=grpc.Compression.Gzip)
        process.terminate()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and out == "stopped\n"
    assert "Traceback" not in err and "gzip" not in err


def test_what_cannot_be_started_is_one_sentence(folder, ports, capsys, monkeypatch):
    flags = ["--port", "0", "--grpc-port"]
    for port, message in (
        (str(ports[1]), "`--grpc-port` must be free on 127.0.0.1. Received: "),
        ("70000", "`--grpc-port` must be from 0 to 65535. Received: "),
    ):
        assert run_command("serve", [str(folder), *flags, port]) == 2
        assert message in capsys.readouterr().err
    find_spec = "kerasmlp.commands.serve.importlib.util.find_spec"
    monkeypatch.setattr(find_spec, lambda name: name != "grpc")
    assert run_command("serve", [str(folder), *flags, "0"]) == 2
    assert "pip install kerasmlp[grpc]" in capsys.readouterr().err
