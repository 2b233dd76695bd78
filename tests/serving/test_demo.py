"""The demo's server as a browser meets it: answers, refusals, and what is left on the disk."""

import asyncio
import base64
import http.client
import importlib.util
import json
import os
import re
import signal
import subprocess
import time
from urllib.parse import urlsplit

import h5py
import numpy as np
import pytest
from data_sets import ROOT, SHARED, make_store
from forked import fresh_python

if not importlib.util.find_spec("gradio"):  # the server alone imports it, which takes seconds
    pytest.skip("needs gradio (extra `demo`)", allow_module_level=True)
from gradio_client import Client, handle_file

from kerasmlp import SAMPLE, EmbeddingStore
from kerasmlp.cli import run_command
from kerasmlp.serving.demo.gate import DemoGate
from kerasmlp.serving.demo.page import _answered, sweep

needs_faces = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the photos and models")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def store(folder):
    path = folder / "faces.h5"
    EmbeddingStore.open(SAMPLE).subset(range(400)).save(path)
    return path


@pytest.fixture(scope="module")
def demo(folder, store):
    """A running server; its address, and the folder that it takes for temporary files."""
    runs = folder / "age", folder / "gender"
    for command, run in zip(("train-age", "train-gender"), runs, strict=True):
        arguments = ["--store", str(store), "--run-dir", str(run), "--epochs", "1"]
        assert run_command(command, arguments) == 0
    command = [fresh_python(), str(ROOT / "bin" / "demo"), str(runs[0]), "--also", str(runs[1])]
    command += ["--port", "0", "--num-samples", "8"]
    if SHARED.is_dir():
        command += ["--model-dir", str(SHARED / "models")]
    temporary = folder / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    with open(folder / "errors.txt", "w") as errors:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=errors
        )
    line = process.stdout.readline()
    assert line.startswith("ready "), (folder / "errors.txt").read_text()
    yield line.split()[1], temporary
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == "stopped\n"
    assert process.wait() == 0
    assert not list(temporary.glob("kerasmlp-demo-*"))
    assert "Traceback" not in (folder / "errors.txt").read_text()


@pytest.fixture(scope="module")
def client(demo, folder):
    return Client(demo[0], verbose=False, download_files=folder / "downloads")


def uploads(demo):
    return [p for p in demo[1].glob("kerasmlp-demo-*/**/*") if p.is_file()]


def ask(client, path, api_name):
    """Returns the HTML of the answer; the first output is the emptied area to drop at."""
    answer = client.predict(handle_file(str(path)), api_name=api_name)
    return answer[1], (answer[2] if len(answer) > 2 else None)


def sentence(html):
    (text,) = re.findall(r'^<p role="alert">([^<]*)</p>$', html)
    return text


def request(demo, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(urlsplit(demo[0]).netloc, timeout=600)
    connection.request(method, path, body, {"content-type": "application/json"} | headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers


@needs_faces
def test_a_photo(demo, client):
    import cv2
    from insightface.data import get_image

    path = demo[1].parent / "six.png"
    cv2.imwrite(str(path), get_image("t1"))
    html, _ = ask(client, path, "/photo")
    assert "6 faces, from left to right" in html and html.count("<tr>") == 7
    years = r"<td>\d+ years \(90%: \d+–\d+\), uncertainty [01]\.\d\d</td>"
    assert len(re.findall(years, html)) == 6
    assert (
        len(
            re.findall(
                r"<td>(?:fe)?male(?: or (?:fe)?male \(90%\))?, uncertainty [01]\.\d\d</td>", html
            )
        )
        == 6
    )
    assert "Uncertainty is 0 where all is on one class" in html
    content = base64.b64decode(re.search(r"data:image/jpeg;base64,([^\"]+)", html)[1])
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).astype(int)
    near = np.abs(picture - [100, 220, 80]).max(axis=2) < 40
    assert near.sum() > 1000  # the boxes
    assert not uploads(demo)


@needs_faces
def test_photos_that_have_no_answer(demo, client):
    import cv2

    folder = demo[1].parent
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    cv2.imwrite(str(folder / "noise.png"), noise)
    (folder / "text.jpg").write_text("no photo")
    cv2.imwrite(str(folder / "bomb.png"), np.zeros((9000, 9000), np.uint8))
    assert (folder / "bomb.png").stat().st_size < 1 << 20
    for name, message in (
        ("noise.png", "`noise.png` must show a face. Received: a photo in which none was found"),
        ("text.jpg", "`text.jpg` must be a readable image."),
        ("bomb.png", "`bomb.png` must be a readable image."),
    ):
        assert sentence(ask(client, folder / name, "/photo")[0]).startswith(message)
    assert not uploads(demo)


def test_a_store(demo, client, store):
    html, table = ask(client, store, "/store")
    assert "<p>400 rows</p>" in html and html.count("data:image/png;base64,") == 1
    for name in ("age", "gender"):
        for kind in ("most", "least"):
            assert f"<caption>{name}: {kind} certain</caption>" in html
    assert table["headers"][:5] == ["row", "age", "from", "to", "age: uncertainty"]
    rows = np.array([row[:5] for row in table["data"]], float)
    assert rows.shape == (400, 5) and (rows[:, 0] == np.arange(400)).all()
    assert (rows[:, 2] <= rows[:, 1]).all() and (rows[:, 1] <= rows[:, 3]).all()
    most = re.search(r"age: most certain.*?</table>", html)[0]
    first = int(re.search(r"<td>(\d+)</td>", most)[1])
    assert rows[first, 4] == rows[:, 4].min()
    assert not uploads(demo)


def edited(path, name, edit):
    make_store(rows=20, width=512).save(path)
    with h5py.File(path, "r+") as file:
        del file[name]
        edit(file)


def test_stores_that_have_no_answer(demo, client, tmp_path, store):
    (tmp_path / "text.h5").write_text("no store")
    make_store(rows=20, width=512).save(tmp_path / "other.h5")
    link, gender = h5py.ExternalLink(str(store), "labels/gender"), "labels/gender"
    edited(tmp_path / "pointing.h5", gender, lambda file: file.__setitem__(gender, link))

    def huge(file):  # a few bytes that claim a terabyte
        file.create_dataset("embedding", (1 << 29, 512), "f4", chunks=(1, 512))[0] = 1

    def bomb(file):  # a chunk of 256 MiB in few bytes
        how = {"chunks": (1 << 17, 512), "maxshape": (None, 512), "compression": 1}
        file.create_dataset("embedding", (20, 512), "f4", **how)[:1] = 1

    edited(tmp_path / "huge.h5", "embedding", huge)
    edited(tmp_path / "bomb.h5", "embedding", bomb)
    with h5py.File(tmp_path / "<b>.h5", "w") as file:
        file["embedding"] = np.eye(4)
    for name, message in (
        ("bomb.h5", "`bomb.h5` must take at most 268,435,456 bytes of memory"),
        ("text.h5", "`text.h5` must be a complete HDF5 file"),
        ("other.h5", "must hold embeddings of"),
        ("pointing.h5", "must hold all of its data itself. Received: a link to another file in "),
        ("huge.h5", "`huge.h5` must take at most 268,435,456 bytes of memory"),
        ("<b>.h5", "must be an embedding store"),
    ):
        text = sentence(ask(client, tmp_path / name, "/store")[0])
        assert message in text and str(demo[1]) not in text
    assert "<p>400 rows</p>" in ask(client, store, "/store")[0]  # as if nothing had happened
    assert not uploads(demo)


def test_the_page_asks_nothing_of_other_hosts(demo):
    status, html, headers = request(demo, "GET", "/")
    assert status == 200 and "default-src 'self'" in headers["content-security-policy"]
    config = json.loads(re.search(r"window.gradio_config = (\{.*?\});</script>", html)[1])
    assert not config["analytics_enabled"] and not config.get("run_history")
    assert not config["stylesheets"] and config["footer_links"] == []
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', html)
    status, css, _ = request(demo, "GET", "/theme.css")
    assert status == 200 and not re.findall(r"@import|url\(['\"]?http", css)
    assert "system-ui" in css


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/gradio_api/proxy=http://127.0.0.1/", 404),
        ("GET", "/monitoring", 404),
        ("GET", "/gradio_api/file=/etc/passwd", 403),
        ("GET", "/gradio_api/file=http://127.0.0.1:1/", 403),
        ("POST", "/gradio_api/run/store", 404),
        ("POST", "/gradio_api/call/store", 404),
        ("PUT", "/", 404),
    ],
)
def test_addresses_that_the_page_does_not_need(demo, method, path, status):
    assert request(demo, method, path, b"{}")[0] == status


def test_only_uploads_can_be_asked_about(demo, store):
    (folder,) = demo[1].glob("kerasmlp-demo-*")
    elsewhere = ["/etc/passwd", "http://127.0.0.1:1/a.h5", str(store), ["a"], "a\0", str(folder)]
    through = f"{folder}/../{folder.name}/a/b.h5"
    files = [{"path": path} for path in (*elsewhere, through)]
    files += [{"path": f"{folder}/a/b.h5", "is_stream": value} for value in (True, 1, "true")]
    for file in files:
        body = {"data": [{**file, "meta": {"_type": "gradio.FileData"}}], "fn_index": 0}
        body["session_hash"] = "a"
        status, text, _ = request(demo, "POST", "/gradio_api/queue/join", json.dumps(body))
        assert (status, json.loads(text)["detail"]) == (
            403,
            "The file must be one that was uploaded here.",
        )
    assert store.exists() and folder.exists()


def test_only_what_lies_in_the_folder_is_removed(tmp_path):
    folder = tmp_path / "demo"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b.h5").write_text("b")
    for path in (f"{folder}/../demo/a/b.h5", f"{folder}/..", str(tmp_path), str(folder), None):
        assert _answered({"path": path}, folder, str) == str(folder / "nothing")
        assert (folder / "a" / "b.h5").exists()
    assert _answered({"path": f"{folder}/a/b.h5"}, folder, lambda found: found.read_text()) == "b"
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"host": "evil.example:{port}"}, 403),
        ("GET", "/", {"host": "localhost"}, 403),
        ("GET", "/", {"host": "localhost:{port}"}, 200),
        ("POST", "/gradio_api/reset", {"origin": "http://evil.example"}, 403),
        ("POST", "/gradio_api/reset", {"origin": "null"}, 403),
        ("POST", "/gradio_api/reset", {"origin": "http://localhost:1"}, 403),
        ("POST", "/gradio_api/reset", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", "/gradio_api/reset", {"origin": "http://localhost:{port}"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(demo, method, path, headers, status):
    port = str(urlsplit(demo[0]).port)
    headers = {k: v.replace("{port}", port) for k, v in headers.items()}
    assert request(demo, method, path, b'{"event_id": "a"}', **headers)[0] == status


def test_uploads_are_limited(demo):
    long = {"content-length": str(1 << 30)}
    status, text, _ = request(demo, "POST", "/gradio_api/upload", **long)
    assert status == 413 and "at most 64 MB" in text
    assert not uploads(demo)


def through(gate, times, headers=((b"content-length", b"2"),), path="/gradio_api/upload"):
    """Statuses of equal small requests that a gate gets."""
    statuses = []

    async def receive():
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": path}
    scope["headers"] = [(b"host", b"here:1"), *headers]
    for _ in range(times):
        asyncio.run(gate(scope, receive, send))
    return statuses


def test_the_rate_is_limited(tmp_path, monkeypatch):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    gate, now = DemoGate(app, tmp_path, {"here:1"}), [100.0]
    monkeypatch.setattr("kerasmlp.serving.demo.gate.time.monotonic", lambda: now[0])
    assert through(gate, 62) == [200] * 60 + [429] * 2
    now[0] += 61
    assert through(gate, 1) == [200]
    assert through(gate, 1, headers=()) == [411]


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join"])
def test_bodies_are_as_long_as_they_say(tmp_path, path):
    bodies = []

    async def app(scope, receive, send):
        messages = [await receive() for _ in range(3)]
        bodies.append(b"".join(message.get("body", b"") for message in messages))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    gate = DemoGate(app, tmp_path, {"here:1"})
    length = b"content-length"
    assert through(gate, 1, [(length, b"3")], path) == [200] and bodies == [b"{}"]
    for headers in (
        [(length, b"2"), (b"transfer-encoding", b"chunked")],
        [(length, b"2"), (length, b"3")],
        [(length, "²".encode())],
    ):
        assert through(gate, 1, headers, path) == [411]
    assert through(gate, 1, [(length, b"9" * 5000)], path) == [413]


def test_the_folder_has_a_limit(tmp_path, monkeypatch):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    monkeypatch.setattr("kerasmlp.serving.demo.gate._MAX_FOLDER_BYTES", 10)
    gate = DemoGate(app, tmp_path, {"here:1"})
    (tmp_path / "a").write_bytes(bytes(8))
    assert through(gate, 1) == [200]
    (tmp_path / "a").write_bytes(bytes(9))
    assert through(gate, 1) == [507]


def test_what_nobody_asks_about_is_swept_away(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_text("a")
    (tmp_path / "half").write_text("a")
    for name in ("old", "half"):
        os.utime(tmp_path / name, (time.time() - 500,) * 2)
    sweep(tmp_path, 300)
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_what_cannot_be_started_is_refused(folder, demo, capsys):
    port = demo[0].rsplit(":", 1)[1]
    for flags, message in (
        (["--port", port], "`--port` must be free on 127.0.0.1. Received"),
        (["--num-samples", "0"], "`--num-samples` must be an integer >= 1"),
        (["--also", str(folder / "age")], "`--also` must be runs of different labels"),
        (["--max-risk", "2"], "`--max-risk` must be in (0, 1)"),
    ):
        assert run_command("demo", [str(folder / "age"), *flags]) == 2
        assert message in capsys.readouterr().err
