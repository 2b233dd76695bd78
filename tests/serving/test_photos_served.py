"""Photos that are asked about over HTTP."""

import io
import json
import os
import shutil
import signal
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from test_export import WIDTH, make_run

pytest.importorskip("aiohttp", reason="needs aiohttp (extra `serve`)")
pytest.importorskip("orjson", reason="needs orjson (extra `serve`)")
pytest.importorskip("prometheus_client", reason="needs prometheus_client (extra `serve`)")
pytest.importorskip("onnx", reason="needs onnx (extra `onnx`)")
pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra `faces`)")
import tiny_embedder
from served import http_request, service

from kerasmlp import InputError
from kerasmlp.cli import run_command
from kerasmlp.data.targets import Target
from kerasmlp.faces.finder import FaceFinder, image_of
from kerasmlp.serving.export.saved_model import export_model
from kerasmlp.serving.server.photo_paths import open_photos
from kerasmlp.serving.server.served_models import load_models
from kerasmlp.utils.files import sha256_file

EMBED = "/v1/models/race:embed"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    """Takes pictures whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_embedder, "WIDTH", WIDTH)
        folder = tmp_path_factory.mktemp("embedder")
        return tiny_embedder.write_embedder(folder, normalize=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, embedder):
    """An export whose description says that it was trained on that embedder."""
    path = tmp_path_factory.mktemp("served")
    run = make_run(path / "run", Target("race", ("a", "b", "c")), dropout_rate=0.3)
    about = export_model(run, path / "race")["version"] + "/assets/model.json"
    with open(about) as file:
        description = json.load(file)
    description |= {"embedder_sha256": sha256_file(embedder / "tiny.onnx")}
    with open(about, "w") as file:
        json.dump(description, file)
    return path / "race"


@pytest.fixture(scope="module")
def models(folder):
    return load_models([folder])


@pytest.fixture(scope="module")
def photos(models, embedder):
    photos = open_photos(models, 60.0, model_dir=None, embedder=embedder, detector="auto")
    yield photos
    photos.stop()


@pytest.fixture(scope="module")
def port(models, photos):
    with service(models, photos=photos, max_body_bytes=1 << 20) as port:
        yield port


def picture(kind="png", sides=(40, 30), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*sides, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def bomb():
    """A PNG of a few bytes that promises 10^10 pixels."""

    def chunk(kind, content):
        sum_ = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + sum_

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rows + chunk(b"IEND", b"")


def ask(port, body, kind="image/png", query="", **headers):
    headers = {"Content-Type": kind, **headers}
    status, answer, _ = http_request(port, "POST", EMBED + query, body, headers)
    return status, answer


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_embeddings_and_answers_are_those_of_the_parts(kind, port, models, embedder):
    finder, version = FaceFinder(embedder=embedder), models["race"].versions[1]
    (face,) = finder.find(image_of(picture(kind), "a picture"))
    mc = {"num_samples": np.array([9], np.int32), "seed": np.array([2**40])}
    for query, signature, more in (
        ("", "serving_default", {}),
        (f"?num_samples=9&seed={2**40}", "serve_mc", mc),
    ):
        status, answer = ask(port, picture(kind), f"image/{kind}", query)
        assert status == 200 and list(answer) == ["faces", "predictions"]
        (found,) = answer["faces"]
        assert found["box"] == [0, 0, 30, 40] and found["det_score"] is None
        np.testing.assert_array_equal(np.float32(found["embedding"]), face.embedding)
        expected = version.run(signature, {"embedding": face.embedding[None], **more})
        (prediction,) = answer["predictions"]
        assert prediction.keys() == expected.keys()
        assert prediction.pop("label").encode() == expected.pop("label")[0]
        for name, values in expected.items():
            np.testing.assert_array_equal(np.float32(prediction[name]), values[0])


def test_the_description_is_valid(port):
    validator = pytest.importorskip("openapi_spec_validator", reason="needs openapi-spec-validator")
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    _, whole, _ = http_request(port, "GET", "/openapi.json")
    assert not list(validator.OpenAPIV31SpecValidator(whole).iter_errors())
    responses = whole["paths"]["/v1/models/{model}:embed"]["post"]["responses"]
    (content,) = responses["200"]["content"].values()
    jsonschema.validate(ask(port, picture())[1], {**content["schema"], **whole})


@pytest.mark.parametrize(
    ("body", "how", "status", "sentence"),
    [
        (b"{}", {"kind": "application/json"}, 415, "the body must be image/jpeg or image/png"),
        (b"{}", {}, 400, "`body` must be image/png. Received: something else"),
        (picture("jpeg"), {}, 400, "`body` must be image/png. Received: something else"),
        (
            picture("gif"),
            {"kind": "image/jpeg"},
            400,
            "must be image/jpeg. Received: something els",
        ),
        (picture()[:300], {}, 400, "`body` must be a readable image. Received: a damaged or unkno"),
        (b"\xff\xd8\xff" + bytes(999), {"kind": "image/jpeg"}, 400, "a damaged or unknown one"),
        (bomb(), {}, 400, "Received: one of more pixels than are read of a file of this size"),
        (b"", {}, 400, "`body` must be image/png"),
        (bytes(2 << 20), {}, 413, "the body is too large: at most 1048576 bytes"),
        (picture(), {"Content-Encoding": "gzip"}, 415, "the body must not be compressed"),
        (picture(), {"Sec-Fetch-Site": "cross-site"}, 403, "another site's page must not ask"),
        (picture(), {"query": "?seed=1"}, 400, "must be empty or num_samples and seed, each once"),
        (picture(), {"query": "?seed=1&seed=2"}, 400, "`query` must be empty or num_samples"),
        (picture(), {"query": "?num_samples=0&seed=1"}, 400, "must be an integer from 1 to 4096"),
        (picture()[:300], {"query": "?num_samples=0&seed=1"}, 400, "an integer from 1 to 4096"),
        (picture(), {"query": "?num_samples=9&seed=1e3"}, 400, "must be an integer. Received: '1"),
        (picture(), {"query": "?num_samples=9&seed=-1"}, 400, "`seed` must be an integer"),
    ],
)
def test_what_is_no_photo_is_refused(body, how, status, sentence, port):
    answered, answer = ask(port, body, **how)
    assert answered == status and sentence in answer["error"]
    assert ask(port, picture())[0] == 200


def test_who_ends_the_process_ends_no_other(models, embedder):
    photos = open_photos(models, 3.0, model_dir=None, embedder=embedder, detector="auto")
    expected = photos.find(picture())[1]
    os.kill(photos._worker.process.pid, signal.SIGKILL)
    photos._worker.process.wait()
    np.testing.assert_array_equal(photos.find(picture())[1], expected)
    os.kill(photos._worker.process.pid, signal.SIGSTOP)  # as a photo that takes for ever
    with pytest.raises(InputError, match="must be a photo for which time and memory suffice"):
        photos.find(picture())
    np.testing.assert_array_equal(photos.find(picture())[1], expected)
    photos.stop()


def test_other_embedders_and_none(models, folder, embedder, tmp_path, capsys):
    with service(models) as port:
        status, answer = ask(port, picture())
        why = "only :predict is answered, not :embed; :embed needs `serve --model-dir`"
        assert (status, answer["error"]) == (400, why)
    other = shutil.copytree(embedder, tmp_path / "other")
    (other / "tiny.onnx").write_bytes(tiny_embedder.tiny_onnx(seed=1))
    command = ["serve", str(folder), "--port", "0", "--embedder"]
    assert run_command(*command[:1], [*command[1:], str(other)]) == 2
    assert "`the embedder` must hold embeddings of made.onnx (sha256 " in capsys.readouterr().err
    assert run_command(*command[:1], [*command[1:], str(tmp_path)]) == 2
    assert "embedder.json" in capsys.readouterr().err
    assert run_command("serve", [str(folder), "--port", "0", "--detector", "none"]) == 2
    assert "`--detector` must come with --embedder or --model-dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    "lie",
    [
        {"preprocessing": "none"},
        {"preprocessing": {"flip": 3}},
        {"preprocessing": [1]},
        {"embedder_sha256": 5},
        {"embedder": ["a"]},
        {"normalized": "no"},
    ],
)
def test_a_description_that_lies_about_its_embedder_is_one_sentence(lie, models, photos, embedder):
    version = models["race"].versions[1]
    before = version.description
    with service(models, photos=photos) as port:
        version.description = before | lie
        try:
            status, answer = ask(port, picture())
            with pytest.raises(InputError, match=r"model.json` must be the description of a model"):
                open_photos(models, 3.0, model_dir=None, embedder=embedder, detector="auto")
        finally:
            version.description = before
        assert status == 400 and "model.json` must be the description of a model" in answer["error"]
        assert "`race/1/assets/model.json`" in answer["error"]
        assert ask(port, picture())[0] == 200
