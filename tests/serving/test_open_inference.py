"""The Open Inference Protocol, asked by Triton's client and by hostile ones."""

import http.client
import json
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_export import WIDTH, X

pytest.importorskip("aiohttp", reason="needs aiohttp (extra `serve`)")
pytest.importorskip("orjson", reason="needs orjson (extra `serve`)")
pytest.importorskip("prometheus_client", reason="needs prometheus_client (extra `serve`)")
from served import http_request, post, service

from kerasmlp import InputError
from kerasmlp.serving.server.http_server import further_paths
from kerasmlp.serving.server.http_service import HttpService
from kerasmlp.serving.server.json_process import JsonProcess
from kerasmlp.serving.server.limits import Limits
from kerasmlp.serving.server.model_service import ModelService
from kerasmlp.serving.server.open_inference import InferForm, decode_infer
from kerasmlp.serving.server.openapi import openapi
from kerasmlp.serving.server.rest_json import decode

INFER = "/v2/models/age/infer"
SIZE = "Inference-Header-Content-Length"
KINDS = {"FP32": "<f4", "INT32": "<i4", "INT64": "<i8"}
FORM = InferForm(
    {"serving_default": ("embedding",), "serve_mc": ("embedding", "num_samples", "seed")},
    WIDTH, max_rows=200, max_samples=64, model="age",
    outputs={"serving_default": ["label", "p"], "serve_mc": ["label", "p", "std"]},
)  # fmt: skip


@pytest.fixture(scope="module")
def port(models):
    with service(models, max_rows=200, max_body_bytes=1 << 20) as port:
        yield port


def tensor(name, values, binary=False):
    """A tensor of a request, and what lies behind the JSON of it."""
    datatype = {"embedding": "FP32", "num_samples": "INT32", "seed": "INT64"}[name]
    values = np.asarray(values, KINDS[datatype])
    one = {"name": name, "datatype": datatype, "shape": list(values.shape)}
    content = values.tobytes() if binary else b""
    how = {"parameters": {"binary_data_size": len(content)}} if binary else {}
    return one | (how or {"data": values.ravel().tolist()}), content


def ask(port, *tensors, path=INFER, headers=None, **more):
    """Returns the status, and the outputs as arrays, or the error."""
    head = json.dumps({"inputs": [one for one, _ in tensors], **more}).encode()
    parts = [content for _, content in tensors]
    own = {SIZE: str(len(head))} if any(parts) else {}
    status, answer, content = raw(port, path, b"".join([head, *parts]), own | (headers or {}))
    if status != 200:
        return status, answer["error"]
    return answer, read(answer["outputs"], content)


def raw(port, path, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    size = int(answer.headers.get(SIZE, len(content)))
    connection.close()
    return answer.status, json.loads(content[:size]), content[size:]


def read(tensors, content):
    """As the specification has them, by other means than the server's."""
    outputs, first = {}, 0
    for one in tensors:
        size = one.get("parameters", {}).get("binary_data_size")
        if size is not None:
            part, first = content[first : first + size], first + size
            if one["datatype"] == "BYTES":
                texts = []
                while part:
                    length = int.from_bytes(part[:4], "little")
                    texts, part = [*texts, part[4 : 4 + length]], part[4 + length :]
                values = np.array(texts, object)
            else:
                values = np.frombuffer(part, KINDS[one["datatype"]])
        elif one["datatype"] == "BYTES":
            values = np.array([v.encode() for v in one["data"]], object)
        else:
            values = np.array(one["data"], KINDS[one["datatype"]])
        outputs[one["name"]] = values.reshape(one["shape"])
    assert first == len(content)
    return outputs


def check_same(outputs, expected):
    assert outputs.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(outputs[name], values, strict=True)


def mc_inputs(x, num_samples, seed):
    each = {"num_samples": np.int32(num_samples), "seed": np.int64(seed)}
    return {"embedding": x} | {k: np.broadcast_to(v, len(x)) for k, v in each.items()}


def test_tritonclient_to_the_bit(port, version):
    triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    from tritonclient.utils import InferenceServerException

    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("age") and client.is_model_ready("age", "1")
    assert not client.is_model_ready("age", "2") and not client.is_model_ready("none")
    assert client.get_server_metadata()["name"] == "kerasmlp"
    metadata = client.get_model_metadata("age")
    assert metadata["inputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, WIDTH]}]
    names = [one["name"] for one in metadata["outputs"]]

    def arrays(answer, names):
        outputs = {name: answer.as_numpy(name) for name in names}
        texts = [v if isinstance(v, bytes) else v.encode() for v in outputs["label"]]
        return outputs | {"label": np.array(texts, object)}  # in JSON it has texts

    def asked(questions, binary, outputs=None, **more):
        inputs = []
        for name, values in questions.items():
            kind = {"embedding": "FP32", "num_samples": "INT32", "seed": "INT64"}[name]
            one = triton.InferInput(name, values.shape, kind)
            inputs.append(one.set_data_from_numpy(np.ascontiguousarray(values), binary_data=binary))
        wanted = outputs and [triton.InferRequestedOutput(n, binary_data=binary) for n in outputs]
        return client.infer("age", inputs, outputs=wanted, request_id="7", **more)

    expected = version.run("serving_default", {"embedding": X})
    mc = mc_inputs(X, [3, 9, 1, 3, 64, 3, 2], [0, 1, 2, 3, 4, 5, 2**63 - 1])
    expected_mc = version.run("serve_mc", mc)
    for binary in (True, False):
        answer = asked({"embedding": X}, binary, names)
        check_same(arrays(answer, names), expected)
        answer = asked(mc, binary, sorted(expected_mc), model_version="1")
        check_same(arrays(answer, expected_mc), expected_mc)
    whole = asked({"embedding": X}, True)  # all outputs, binary
    check_same(arrays(whole, names), expected)
    assert whole.get_response()["id"] == "7" and whole.get_response()["model_version"] == "1"
    with pytest.raises(InferenceServerException, match=r"must be \[rows, 16\], one row or more"):
        asked({"embedding": X[:, :3]}, True)
    with pytest.raises(InferenceServerException, match="there is no model 'none'"):
        client.infer("none", [])
    client.close()


def test_answers_are_those_of_the_other_dialect(port, version):
    """In every form in which a tensor may come and go."""
    expected = version.run("serving_default", {"embedding": X})
    nested = {**tensor("embedding", X)[0], "data": X.tolist()}
    binary = {"parameters": {"binary_data_output": True}}
    for one in (tensor("embedding", X), (nested, b""), tensor("embedding", X, binary=True)):
        for more in ({}, binary, {"outputs": [], "id": None, "parameters": None}):
            answer, outputs = ask(port, one, **more)
            check_same(outputs, expected)
            about = {k: v for k, v in answer.items() if k != "outputs"}
            assert about == {"model_name": "age", "model_version": "1"}
            is_binary = ["parameters" in one for one in answer["outputs"]]
            assert set(is_binary) == {more is binary}
    _, other = post(port, {"inputs": X.tolist()})
    for name, values in outputs.items():
        plain = [v.decode() for v in values] if name == "label" else values.tolist()
        of_float32 = np.float32(other["outputs"][name]).tolist() if name != "label" else plain
        assert plain == of_float32
    assert other["outputs"]["label"] == [v.decode() for v in expected["label"]]


def test_which_signature_and_which_outputs(port, version):
    mc = [tensor("num_samples", [12]), tensor("seed", [2**40 + 3])]
    expected = version.run("serve_mc", mc_inputs(X, 12, 2**40 + 3))
    tensors = [*mc, tensor("embedding", X, binary=True)]
    check_same(ask(port, *tensors)[1], expected)
    named = {"parameters": {"signature_name": "serve_mc"}}
    check_same(ask(port, *tensors, **named, model_name="age")[1], expected)
    wanted = [
        {"name": "label", "parameters": {"binary_data": True}},
        {"name": "probabilities", "parameters": {"binary_data": False}},
        {"name": "age_interval_90", "parameters": {"content_type": "np"}},
    ]
    path = "/v2/models/age/versions/1/infer"
    all_binary = {"parameters": {"binary_data_output": True}}
    answer, outputs = ask(port, *tensors, outputs=wanted, id="a", path=path, **all_binary)
    assert [one["name"] for one in answer["outputs"]] == [one["name"] for one in wanted]
    assert ["data" in one for one in answer["outputs"]] == [False, True, False]
    assert answer["id"] == "a"
    check_same(outputs, {k: expected[k] for k in outputs})
    assert ask(port, tensor("embedding", X), **named) == (
        400,
        "`inputs` must be embedding, num_samples, seed of serve_mc. Received: ['embedding']",
    )


@pytest.mark.parametrize("padding", [0, 100_000])
@pytest.mark.parametrize("binary", [True, False])
def test_large_bodies_are_answered_alike(models, version, binary, padding):
    x = np.random.default_rng(0).standard_normal((1500, WIDTH), np.float32)
    with service(models, max_rows=2000) as port:
        _, outputs = ask(port, tensor("embedding", x, binary), outputs=None, id="a" * padding)
    check_same(outputs, version.run("serving_default", {"embedding": x}))


def test_the_other_paths(port, version):
    _, about, _ = http_request(port, "GET", "/v2")
    assert about["extensions"] == ["binary_tensor_data", "signatures"] and about["version"]
    assert http_request(port, "GET", "/v2/health/live")[:2] == (200, {"live": True})
    assert http_request(port, "GET", "/v2/health/ready")[:2] == (200, {"ready": True})
    for path in ("/v2/models/age/ready", "/v2/models/age/versions/1/ready"):
        assert http_request(port, "GET", path)[:2] == (200, {"name": "age", "ready": True})
    _, metadata, _ = http_request(port, "GET", "/v2/models/age/versions/1")
    assert (metadata["versions"], metadata["platform"]) == (["1"], "tensorflow_savedmodel")
    assert metadata["outputs"] == metadata["signatures"]["serving_default"]["outputs"]
    inputs = {one["name"]: one for one in metadata["signatures"]["serve_mc"]["inputs"]}
    assert [inputs[k]["datatype"] for k in sorted(inputs)] == ["FP32", "INT32", "INT64"]
    assert inputs["seed"]["shape"] == [-1]
    for signature, tensors in metadata["signatures"].items():
        inputs = {"embedding": X} if signature == "serving_default" else mc_inputs(X, 3, 0)
        outputs = version.run(signature, inputs)
        described = {one["name"]: one for one in tensors["outputs"]}
        assert described.keys() == outputs.keys()
        for name, values in outputs.items():
            datatype = "BYTES" if values.dtype == object else "FP32"
            assert described[name]["datatype"] == datatype
            assert described[name]["shape"][1:] in ([], list(values.shape[1:]))
    for method, path, status in (
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/age/versions/2", 404),
        ("GET", "/v2/models/age/labels/a", 404),
        ("GET", INFER, 405),
        ("POST", "/v2/models/age", 405),
        ("POST", "/v2/models/age/versions/x/infer", 404),
        ("GET", "/v2/models", 404),
    ):
        answered, content, _ = http_request(port, method, path)
        assert answered == status and list(content) == ["error"]


GOOD = tensor("embedding", X)[0]
BINARY, ROWS = tensor("embedding", X, binary=True)
NUMBERS = [tensor("num_samples", [4])[0], tensor("seed", [0])[0]]


def changed(one=GOOD, **values):
    return {"inputs": [{k: v for k, v in {**one, **values}.items() if v is not ...}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "`inputs` must be a list of at least one tensor. Received: None"),
        ({"inputs": {}}, "`inputs` must be a list of at least one tensor"),
        ({"inputs": [1]}, "`inputs[0]` must be an object with a name. Received: 1"),
        ({"inputs": [GOOD, GOOD]}, "`inputs[1]` must be named once. Received: 'embedding'"),
        ({"inputs": [GOOD], "instances": []}, "`body` must hold only inputs, outputs, parameters,"),
        ({"inputs": [GOOD], "model_name": "gender"}, "`model_name` must be the model of the path"),
        ({"inputs": [GOOD], "id": 7}, "`id` must be a text. Received: 7"),
        ({"inputs": [GOOD], "parameters": []}, "`parameters` must be an object. Received: []"),
        ({"inputs": [GOOD], "parameters": {"priority": 1}}, "`parameters` must hold only signatu"),
        (
            {"inputs": [GOOD], "parameters": {"signature_name": "x"}},
            "`signature_name` must be one of serving_default, serve_mc. Received: 'x'",
        ),
        (
            {"inputs": [GOOD], "parameters": {"binary_data_output": 1}},
            "`parameters.binary_data_output` must be true or false. Received: 1",
        ),
        ({"inputs": [GOOD], "outputs": 0}, "`outputs` must be a list of at least one tensor"),
        ({"inputs": [GOOD], "outputs": [{"name": "age"}]}, "`outputs` must be among label, p."),
        (
            {"inputs": [GOOD], "outputs": [{"name": "p", "parameters": {"classification": 3}}]},
            "`p` must hold only binary_data, content_type. Received: ['classification']",
        ),
        (changed(name="x"), "`inputs` must be embedding of serving_default. Received: ['x']"),
        (changed(data=...), "`embedding` must have either `data` or a `binary_data_size`. Receive"),
        (changed(data="0"), "`embedding` must have a list as its data. Received: '0'"),
        (changed(data=[]), "`embedding` must have 112 numbers, as its shape says. Received: 0"),
        (changed(data=[0.5] * 111), "must have 112 numbers, as its shape says. Received: 111"),
        (changed(data=[[0.5] * 16] * 6), "must have 7 rows, as its shape says. Received: 6"),
        (changed(data=[[0.5] * 15] * 7), "`embedding[0]` must be a list of 16 numbers"),
        (changed(data=[True] * 112), "`embedding` must hold numbers only. Received: True"),
        (changed(data=[1e39] * 112), "must hold numbers that float32 can hold"),
        (changed(data=[[[0.5] * 16]] * 7), "must be a list of 16 numbers. Received: 1"),
        (changed(datatype="FP64"), "`embedding` must be of datatype FP32. Received: 'FP64'"),
        (changed(datatype=["FP32"]), "`embedding` must be of datatype FP32. Received: ['FP32']"),
        (changed(shape=7), "`embedding.shape` must be a list of integers >= 0. Received: 7"),
        (changed(shape=[7, 16.0]), "must be a list of integers >= 0. Received: [7, 16.0]"),
        (changed(shape=[True, 16]), "must be a list of integers >= 0. Received: [True, 16]"),
        (changed(shape=[-7, 16]), "must be a list of integers >= 0. Received: [-7, 16]"),
        (changed(shape=[112]), "must be [rows, 16], one row or more. Received: [112]"),
        (changed(shape=[0, 16]), "must be [rows, 16], one row or more. Received: [0, 16]"),
        (changed(shape=[2**64 - 1, 16]), "must hold at most 200 rows. Received: 184467440737095"),
        (changed(extra=1), "`inputs[0]` must hold only name, shape, datatype, data, parameters"),
        (
            changed(parameters={"shared_memory_region": "a"}),
            "`embedding` must hold only binary_data_size, content_type. Received: ['shared_memo",
        ),
        (changed(parameters={"binary_data_size": 448}), "must have either `data` or a `binary_d"),
        (changed(BINARY), "size` must be an integer from 0 to 0, the bytes that came. Received: 4"),
        (
            changed(BINARY, parameters={"binary_data_size": True}),
            "`embedding.binary_data_size` must be an integer from 0 to 0, the bytes that came",
        ),
        ({"inputs": [GOOD, NUMBERS[0]]}, "`inputs` must be embedding, num_samples, seed of serve_"),
        (
            {"inputs": [GOOD, NUMBERS[0], {**NUMBERS[1], "shape": [2], "data": [0, 0]}]},
            "`seed.shape` must be [1] or [7], as there are rows. Received: [2]",
        ),
        (
            {"inputs": [GOOD, NUMBERS[1], {**NUMBERS[0], "data": [65]}]},
            "`num_samples` must be an integer from 1 to 64. Received: 65",
        ),
        (
            {"inputs": [GOOD, NUMBERS[0], {**NUMBERS[1], "data": [-1]}]},
            "`seed` must be an integer from 0 to 9223372036854775807. Received: -1",
        ),
        (
            {"inputs": [GOOD, NUMBERS[0], {**NUMBERS[1], "datatype": "INT32"}]},
            "`seed` must be of datatype INT64. Received: 'INT32'",
        ),
    ],
)
def test_refused_bodies(content, message):
    with pytest.raises(InputError) as error:
        decode_infer(json.dumps(content).encode(), FORM)
    assert message in str(error.value)


def decoded(tensors, form=FORM, more=b""):
    head = json.dumps({"inputs": [one for one, _ in tensors]}).encode()
    sized = InferForm(**{**vars(form), "json_bytes": len(head)})
    return decode_infer(b"".join([head, *(content for _, content in tensors), more]), sized)


@pytest.mark.parametrize(
    ("tensors", "more", "message"),
    [
        ([(BINARY, ROWS)], b"x", "must end behind its tensors, 448 bytes after the JSON. Received"),
        ([(BINARY, ROWS[:-1])], b"", "from 0 to 447, the bytes that came. Received: 448"),
        ([({**BINARY, "shape": [6, 16]}, ROWS)], b"", "`embedding` must have 384 bytes, as its sh"),
        (
            [tensor("embedding", X * np.float32(np.nan), binary=True)],
            b"",
            "`embedding` must hold finite numbers. Received: NaN or infinity",
        ),
        (
            [(GOOD, b""), tensor("num_samples", [0] * 7, True), tensor("seed", [0], True)],
            b"",
            "`num_samples` must be an integer from 1 to 64. Received: 0",
        ),
    ],
)
def test_refused_binary_tensors(tensors, more, message):
    with pytest.raises(InputError) as error:
        decoded(tensors, more=more)
    assert message in str(error.value)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5),
    binary=st.lists(st.booleans(), min_size=3, max_size=3),
    order=st.permutations(range(3)),
    seed=st.integers(0, 2**63 - 1),
    values=st.data(),
)
def test_what_is_sent_is_what_is_computed(rows, binary, order, seed, values):
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    count = rows * WIDTH
    x = np.array(values.draw(st.lists(floats, min_size=count, max_size=count)), np.float32)
    arrays = {"embedding": x.reshape(rows, WIDTH), "num_samples": [9], "seed": [seed] * rows}
    tensors = [tensor(k, v, b) for (k, v), b in zip(arrays.items(), binary, strict=True)]
    question = decoded([tensors[i] for i in order])
    assert question.signature == "serve_mc" and question.passes == 9 * rows
    np.testing.assert_array_equal(question.inputs["embedding"], arrays["embedding"])
    assert question.inputs["num_samples"].tolist() == [9] * rows
    assert question.inputs["seed"].tolist() == [seed] * rows
    assert question.wanted == {"id": None, "outputs": [["label", 0], ["p", 0], ["std", 0]]}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=8)
    | st.sampled_from(["embedding", "seed", "FP32", "INT64", "serve_mc", "p"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "id",
         "binary_data_size", "binary_data", "signature_name", "x"]), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["inputs", "outputs", "parameters"]), ANYTHING), ANYTHING)
def test_anything_else_is_one_sentence(content, odd):
    for one in (content, changed(shape=odd), changed(data=odd), {"inputs": [GOOD], "outputs": odd}):
        try:
            decode_infer(json.dumps(one).encode(), FORM)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 300


NEST = ["\U000e0001" * 9] * 9
for _ in range(6):
    NEST = [NEST, {"a": NEST}, NEST, *[0] * 9]


@pytest.mark.parametrize(
    ("decoder", "content"),
    [
        (decode_infer, {"inputs": [GOOD], "parameters": {"signature_name": NEST}}),
        (decode_infer, {"inputs": [GOOD], "id": NEST}),
        (decode_infer, {"inputs": [NEST]}),
        (decode_infer, changed(shape=NEST)),
        (decode_infer, changed(name="\U000e0001" * 900)),
        (decode_infer, {"inputs": [{**GOOD, "name": "\U000e0001" * 900}] * 2}),
        (decode_infer, {"inputs": [GOOD], **dict.fromkeys(map(str, range(900)))}),
        (decode, {"signature_name": NEST, "inputs": []}),
        (decode, {"instances": [NEST]}),
        (decode, dict.fromkeys(["\U000e0001" * 90] * 9)),
    ],
)
def test_a_value_of_any_depth_is_shown_in_part(decoder, content):
    """An answer must not be as long as the request that it refuses."""
    with pytest.raises(InputError) as caught:
        decoder(json.dumps(content).encode(), FORM)
    assert 30 < len(str(caught.value)) < 300


def test_the_process_that_decodes_large_bodies_speaks_it_too():
    process = JsonProcess()
    body = json.dumps({"inputs": [*NUMBERS, GOOD], "id": "a"}).encode()
    here, there = decode_infer(body, FORM), process.decode(body, FORM)
    process.stop()
    assert here.signature == there.signature and here.wanted == dict(there.wanted)
    check_same({**here.inputs}, {**there.inputs})


def hostile_requests(count):
    """Path, headers and body; the same ones every time."""
    rng = random.Random(0)
    good = json.dumps({"inputs": [GOOD]}).encode()
    head = json.dumps({"inputs": [BINARY]}).encode()
    odd = [None, True, -1, 0, 1.5, 2**63, 2**64 - 1, 2**64, "7", "", [], {}, [7], [[7, 16]], 1e300]
    shapes = [[2**63, 16], [7, 2**64 - 1], [-7, -16], [7, 16, 1], [], [112], [16, 7], [0, 16], [7]]
    shapes += [[7.0, 16], [1] * 1000, [7, "16"], [None, 16], [[7], 16], [10**30, 10**30]]
    kinds = ["FP64", "FP16", "BF16", "BYTES", "INT8", "BOOL", "fp32", "", "FP32\0", "🙂" * 50, None]

    def sized(value, body=head + ROWS):
        return {SIZE: value}, body

    def of(**values):
        return {}, json.dumps(changed(**values))

    def in_binary(shape, size, content):
        one = {**BINARY, "shape": shape, "parameters": {"binary_data_size": size}}
        return sized(None, (json.dumps({"inputs": [one]}).encode(), content))

    def with_nan():
        values = X.copy()
        values[rng.randrange(7), rng.randrange(16)] = rng.choice([np.nan, np.inf, -np.inf])
        return in_binary([7, 16], 448, values.tobytes())

    def deep():
        depth = rng.choice([10, 1023, 1025, 100_000])
        inner = "[" * depth + "1" + "]" * depth
        return {}, json.dumps(changed(data="@")).replace('"@"', inner)

    lengths = ["-1", "0", "1", str(len(head) - 1), str(len(head) + 1), str(10**18), "9" * 400, "x"]
    lengths += ["1e3", " ", "0x10", "+5", "١", f"{len(head)}, {len(head)}", str(len(head + ROWS))]
    kinds_of = [
        lambda: sized(rng.choice(lengths)),
        lambda: sized(str(len(head)), head + ROWS[: rng.randrange(len(ROWS))]),
        lambda: sized(str(len(head)), head + ROWS + rng.randbytes(rng.randrange(1, 900))),
        lambda: of(shape=rng.choice(shapes)),
        lambda: of(shape=rng.choice(odd)),
        lambda: of(datatype=rng.choice(kinds)),
        lambda: of(name=rng.choice([*odd, "x", "Embedding", "embedding\0", "a" * 100_000])),
        lambda: of(data=rng.choice([v for v in odd if v != []])),
        lambda: of(data=[0.5] * rng.choice([0, 1, 111, 113, 50_000])),
        lambda: of(data=[rng.choice([None, "1", True, [], {}, 1e39])] * 112),
        lambda: of(parameters=rng.choice([7, [], "x", {"binary_data_size": 448}, {"x": 1}])),
        lambda: in_binary([7, 16], rng.choice([447, 449, 2**62, -448, 448.0, "448"]), ROWS),
        lambda: in_binary(rng.choice(shapes), 448, ROWS),
        lambda: in_binary([2**40, 16], 448, ROWS),
        with_nan,
        deep,
        lambda: ({}, json.dumps({"inputs": [GOOD], "outputs": rng.choice([7, [7], [{}], [[]]])})),
        lambda: ({}, json.dumps({"inputs": [GOOD], "parameters": {"signature_name": "__init"}})),
        lambda: ({}, json.dumps({"inputs": [GOOD] * 400})),
        lambda: ({}, json.dumps({"inputs": [{**GOOD, "name": str(i)} for i in range(500)]})),
        lambda: ({}, good[: rng.randrange(1, len(good))]),
        lambda: ({}, good.replace(b"shape", rng.choice([b"\xff", b"\\ud800", b"\\u0000"]))),
        lambda: ({}, good.replace(b"0.1", rng.choice([b"NaN", b"Infinity", b"1e999", b"0x1"]))),
        lambda: ({}, rng.randbytes(rng.randrange(2000))),
        lambda: ({"Content-Encoding": "gzip"}, good),
        lambda: ({}, b"[" + good * 900 + b"]"),
    ]  # fmt: skip
    paths = ["/v2/models/%00/infer", "/v2/models/..%2f..%2fetc/infer", "/v2/models/none/infer"]
    paths += [f"/v2/models/age/versions/{'9' * 5000}/infer", "/v2/models/age/versions/-1/infer"]
    for number in range(count):
        headers, body = kinds_of[number % len(kinds_of)]()
        if isinstance(body, tuple):
            headers, body = {SIZE: str(len(body[0]))}, b"".join(body)
        body = body.encode() if isinstance(body, str) else body
        headers = {k: v.encode("utf-8") for k, v in headers.items()}
        yield INFER if number % 12 else rng.choice(paths), headers, body


def test_hostile_requests_are_refused_and_forgotten(port):
    before = ask(port, tensor("embedding", X, binary=True))
    codes = {}
    for path, headers, body in hostile_requests(260):
        status, answer, content = raw(port, path, body, headers)
        assert 400 <= status < 500, (status, headers, body[:200])
        assert list(answer) == ["error"] and not content
        sentence = answer["error"]
        assert 10 < len(sentence) < 500 and "\n" not in sentence and "Traceback" not in sentence
        codes[status] = codes.get(status, 0) + 1
    assert codes[400] > 200 and codes[404] > 10 and codes[413] > 5 and codes[415] > 5
    status, outputs = ask(port, tensor("embedding", X, binary=True))
    assert status == before[0]
    check_same(outputs, before[1])
    assert http_request(port, "GET", "/v2/health/ready")[0] == 200


def described(path):
    """The paths of the description that stand for one of the router's."""
    choices = {
        "/v1": ("", "/versions/{version}", "/labels/{label}"),
        "/v2": ("", "/versions/{version}"),
    }
    which = choices.get(path[:3], ("",)) if "{which}" in path else ("",)
    return {path.replace("{which}", w).replace("{verb}", "predict") for w in which}


@pytest.mark.parametrize("photos", [None, object()])
def test_the_description_has_every_path(models, photos):
    service = HttpService(ModelService(models, Limits()))
    app = service.app(further_paths(service, photos))
    routes = set()
    for route in app.router.routes():
        if route.method != "HEAD":
            paths = described(route.resource.canonical)
            routes |= {(route.method.lower(), path) for path in paths}
    whole = openapi(photos=photos is not None)
    methods = {
        (m, path) for path, item in whole["paths"].items() for m in item if m != "parameters"
    }
    assert methods == routes
    for path, item in whole["paths"].items():
        named = {one["name"] for one in item.get("parameters", ())}
        assert named == set(re.findall(r"{(\w+)}", path))
        for method, operation in item.items():
            if method != "parameters":
                assert operation["summary"]
                assert all(one["description"] for one in operation["responses"].values())
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(whole)):
        assert name in whole["components"]["schemas"]


def test_the_description_is_valid(port):
    validator = pytest.importorskip("openapi_spec_validator", reason="needs openapi-spec-validator")
    status, whole, _ = http_request(port, "GET", "/openapi.json")
    assert status == 200 and whole == json.loads(json.dumps(openapi()))
    assert not list(validator.OpenAPIV31SpecValidator(whole).iter_errors())


def test_answers_are_as_described(port):
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    whole = openapi()

    def check(method, path, body=None):
        status, answer, _ = http_request(port, method, path, body)
        template = re.sub(r"/models/(age|none)", "/models/{model}", path)
        template = template.replace("versions/1", "versions/{version}")
        operation = whole["paths"][template][method.lower()]
        content = operation["responses"][str(status)]["content"]["application/json"]["schema"]
        root = {**content, "components": whole["components"]}
        jsonschema.Draft202012Validator(root).validate(answer)
        if body:
            asked = operation["requestBody"]["content"]["application/json"]["schema"]
            root = {**asked, "components": whole["components"]}
            is_good = jsonschema.Draft202012Validator(root).is_valid(json.loads(body))
            assert is_good == (status == 200)
        return status

    for path in ("/healthz", "/readyz", "/v2", "/v2/health/live", "/v2/health/ready"):
        assert check("GET", path) == 200
    for model in ("/v1/models/age", "/v1/models/age/versions/1", "/v2/models/age"):
        assert check("GET", model) == 200
    assert check("GET", "/v1/models/age/metadata") == 200
    assert check("GET", "/v2/models/age/versions/1/ready") == 200
    assert check("GET", "/v2/models/none") == check("GET", "/v1/models/none") == 404
    mc = {"embedding": X.tolist(), "num_samples": 3, "seed": [0] * 7}
    asked = [
        {"inputs": X.tolist()},
        {"instances": X.tolist()},
        {"inputs": {"embedding": X.tolist()}},
    ]
    for content in (*asked, {"signature_name": "serve_mc", "inputs": mc}):
        assert check("POST", "/v1/models/age:predict", json.dumps(content)) == 200
    assert check("POST", "/v1/models/age/versions/1:predict", '{"instance": []}') == 400
    for content in ({"inputs": [GOOD]}, {"inputs": [GOOD, *NUMBERS], "id": "a"}):
        assert check("POST", INFER, json.dumps(content)) == 200
    assert check("POST", INFER, json.dumps({"inputs": [GOOD], "x": 1})) == 400
