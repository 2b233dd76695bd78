"""Versions that appear, change and vanish while they are served."""

import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from data_sets import ROOT
from forked import fresh_python
from test_export import WIDTH, X, make_run

pytest.importorskip("aiohttp", reason="needs aiohttp (extra `serve`)")
pytest.importorskip("orjson", reason="needs orjson (extra `serve`)")
pytest.importorskip("prometheus_client", reason="needs prometheus_client (extra `serve`)")
from served import http_request, post, service

from kerasmlp.data.targets import Target
from kerasmlp.serving.export.saved_model import export_model
from kerasmlp.serving.server.served_models import load_models
from kerasmlp.serving.server.service_metrics import ServiceMetrics
from kerasmlp.serving.server.version_watcher import VersionWatcher

INFER = "/v2/models/age/infer"
MODEL = "/v1/models/age"
BODY = json.dumps({"inputs": X.tolist()})


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Two models of one label that answer differently, each in a folder of its own."""
    made = []
    for blocks in (1, 2):
        folder = tmp_path_factory.mktemp("exports")
        target = Target("race", ("a", "b", "c"))
        run = make_run(folder / "run", target, num_blocks=blocks, dropout_rate=0.2)
        made.append(export_model(run, folder / "race")["version"])
    return made


@pytest.fixture
def folder(exports, tmp_path):
    shutil.copytree(exports[0], tmp_path / "age" / "1")
    return tmp_path / "age"


@pytest.fixture
def served(folder):
    """Models of the folder, what watches it, and what became of which version."""
    models, changes = load_models([folder]), []
    watcher = VersionWatcher(models, [folder], changed=lambda *change: changes.append(change))
    return models, watcher, changes


def put(export, place):
    """As another program may: under another name first."""
    shutil.copytree(export, place.with_name(".copying"))
    place.with_name(".copying").rename(place)


def answer_of(version):
    return version.run("serving_default", {"embedding": X})["probabilities"].tolist()


def asked(port, path=f"{MODEL}:predict"):
    status, answer, _ = http_request(port, "POST", path, BODY)
    assert status == 200, answer
    return np.float32(answer["outputs"]["probabilities"]).tolist()


def states(port, model=MODEL):
    _, answer, _ = http_request(port, "GET", model)
    return {one["version"]: one["state"] for one in answer["model_version_status"]}


def test_a_new_version_is_taken_up_and_the_old_one_released(served, folder, exports):
    models, watcher, changes = served
    watcher.look()
    old = models["age"].versions[1]
    first, gone = answer_of(old), [weakref.ref(old), weakref.ref(old._loaded)]
    del old
    with service(models) as port:
        assert asked(port) == first
        put(exports[1], folder / "2")
        watcher.look()
        assert states(port) == {"2": "LOADING", "1": "AVAILABLE"}  # its files may still change
        assert asked(port) == first and not changes
        watcher.look()
        assert changes == [("age", 2, True), ("age", 1, False)]
        assert states(port) == {"2": "AVAILABLE"}
        second = answer_of(models["age"].versions[2])
        assert asked(port) == asked(port, f"{MODEL}/versions/2:predict") == second != first
        assert http_request(port, "GET", f"{MODEL}/versions/1")[0] == 404
        watcher.look()
        assert [one() for one in gone] == [None, None]
        shutil.rmtree(folder / "2")  # as TensorFlow Serving does, back to the one before
        watcher.look()
        watcher.look()
        assert changes[2:] == [("age", 1, True), ("age", 2, False)] and asked(port) == first


def test_a_question_is_answered_by_the_version_it_began_with(served, folder, exports):
    """A batch is computed while the version is replaced."""
    models, watcher, _ = served
    begun, go_on = threading.Event(), threading.Event()
    old = models["age"].versions[1]
    run, first = old.run, answer_of(old)

    def slowly(*asked):
        begun.set()
        go_on.wait(60)
        return run(*asked)

    old.run = slowly
    answers = []
    with service(models) as port:
        thread = threading.Thread(target=lambda: answers.append(asked(port)))
        thread.start()
        begun.wait(60)
        put(exports[1], folder / "2")
        watcher.look()
        watcher.look()
        assert list(models["age"].versions) == [2] and not answers
        go_on.set()
        thread.join()
        assert answers == [first] and asked(port) == answer_of(models["age"].versions[2]) != first


def half_a_weight(path):
    weights = path / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(weights.read_bytes()[:50])


def zeros_for_weights(path):
    weights = path / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(bytes(weights.stat().st_size))


def half_a_graph(path):
    graph = path / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])


def half_a_description(path):
    (path / "assets" / "model.json").write_text('{"width":')


def other(path, **values):
    about = json.loads((path / "assets" / "model.json").read_text())
    (path / "assets" / "model.json").write_text(json.dumps(about | values))


def other_embeddings(path):
    other(path, embedder_sha256="1" * 64)


def other_classes(path):
    other(path, class_names=["b", "a", "c"])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (half_a_weight, "must be a complete SavedModel. Received: weights that are larger than th"),
        (zeros_for_weights, "must be the index of a SavedModel's weights. Received: other conten"),
        (half_a_graph, "must be a complete SavedModel. Received: other contents"),
        (half_a_description, "2/assets/model.json` must be a JSON file. Received: "),
        (lambda path: shutil.rmtree(path / "variables"), "Received: one without variables/variab"),
        (lambda path: shutil.rmtree(path / "assets"), "Received: one without assets/model.json"),
        (
            other_embeddings,
            "must take and give what version 1 does, or be served by a new start. Received: "
            f"embedder_sha256 {'1' * 40}… and not {'0' * 40}…",
        ),
        (other_classes, "class_names ['b', 'a', 'c'] and not ['a', 'b', 'c']"),
    ],
)
def test_a_broken_version_is_refused_and_taken_when_it_is_whole(
    spoil, sentence, served, folder, exports, caplog
):
    models, watcher, changes = served
    first = answer_of(models["age"].versions[1])
    shutil.copytree(exports[1], folder / "2")
    spoil(folder / "2")
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            watcher.look()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"not served: `{folder}/2") and "\n" not in record.msg
    assert sentence in record.getMessage() and not changes
    with service(models) as port:
        assert states(port) == {"2": "END", "1": "AVAILABLE"} and asked(port) == first
        shutil.rmtree(folder / "2")
        put(exports[1], folder / "2")
        watcher.look()
        watcher.look()
        assert states(port) == {"2": "AVAILABLE"} and asked(port) != first
    assert len(caplog.records) == 1


def test_a_version_that_is_being_written_is_not_touched(served, folder, exports, caplog):
    """File by file, each bit by bit, with a look between any two."""
    models, watcher, changes = served
    for source in sorted(_files(exports[1])):
        target = folder / "2" / os.path.relpath(source, exports[1])
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(source, "rb") as file, open(target, "wb") as copy:
            while part := file.read(100_000):
                copy.write(part)
                copy.flush()
                watcher.look()
    assert not caplog.records and not changes
    watcher.look()
    watcher.look()
    assert changes == [("age", 2, True), ("age", 1, False)] and list(models["age"].versions) == [2]


def _files(folder):
    return [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]


def test_what_is_gone_or_meddled_with_goes_on(served, folder, caplog):
    models, watcher, changes = served
    (folder / "2").mkdir()
    (folder / "backup").mkdir()
    (folder / "3").write_text("no folder")
    watcher.look()
    watcher.look()
    assert [r.getMessage() for r in caplog.records] == [
        f"not served: `{folder}/2` must hold a saved_model.pb. Received: a folder"
    ]
    shutil.rmtree(folder)
    for _ in range(3):
        watcher.look()
    assert caplog.records[1].getMessage() == (
        f"versions stay as they are: `{folder}` must be a run or hold numbered versions of an "
        "export. Received: no such file or folder"
    )
    assert len(caplog.records) == 2 and list(models["age"].versions) == [1] and not changes


def test_a_config_is_read_again(exports, tmp_path, caplog):
    for number, export in enumerate((*exports, exports[0]), 1):
        shutil.copytree(export, tmp_path / "years" / str(number))
    config = tmp_path / "models.config"

    def write(*models):
        each = "".join(f"config {{ base_path: 'years' {model} }}" for model in models)
        config.write_text(f"model_config_list {{ {each} }}")

    def look(*messages):
        caplog.clear()
        for _ in range(3):
            watcher.look()
        assert len(caplog.records) == len(messages)
        for record, message in zip(caplog.records, messages, strict=True):
            assert message in record.getMessage()
        return {name: (list(m.versions), m.labels) for name, m in models.items()}

    policy = "model_version_policy { specific { versions: 1 versions: 2 } }"
    stable = "version_labels { key: 'stable' value: %d }"
    write(f"name: 'a' {policy} {stable % 1}")
    models = load_models([config])
    watcher = VersionWatcher(models, [config])
    kept = models["a"].versions[2]
    assert look() == {"a": ([1, 2], {"stable": 1})}
    write(f"name: 'a' {policy} {stable % 2}", "name: 'b'")  # the label moves; a second model
    assert look() == {"a": ([1, 2], {"stable": 2}), "b": ([3], {})}
    assert models["a"].versions[2] is kept
    write(f"name: 'a' {policy} {stable % 7}", "name: 'b' model_version_policy { all {} }")
    expected = {"a": ([1, 2], {"stable": 2}), "b": ([1, 2, 3], {})}
    assert look("`version_labels stable` must be a version that is served. Received: ") == expected
    config.write_text("nonsense: 1")
    assert look("must be a models.config of TensorFlow Serving. Received: ") == expected
    write("name: 'b' model_version_policy { latest { num_versions: 2 } }")
    assert look() == {"b": ([2, 3], {})}
    half_a_graph(tmp_path / "years" / "3")  # a number stands for what it was
    assert look() == {"b": ([2, 3], {})}
    shutil.copytree(exports[0], tmp_path / "years" / "4")
    half_a_graph(tmp_path / "years" / "4")
    assert look("years/4/saved_model.pb` must be a complete") == {"b": ([2, 3], {})}
    assert models["b"].others == {4: "END"}


def test_no_answer_is_wrong_or_lost_while_versions_change(served, folder, exports):
    """Eight connections ask in two dialects; whoever asks later gets the new version."""
    models, watcher, _ = served
    old, new = answer_of(models["age"].versions[1]), None
    tensor = {"name": "embedding", "datatype": "FP32", "shape": [7, WIDTH]}
    inference = json.dumps({"inputs": [{**tensor, "data": X.ravel().tolist()}]})
    asked_at, swapped, end = [], [], time.monotonic() + 2.5

    def ask_on(port, number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.monotonic() < end:
            began = time.monotonic()
            path, body = (f"{MODEL}:predict", BODY) if number % 2 else (INFER, inference)
            connection.request("POST", path, body)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            if number % 2:
                values = content["outputs"]["probabilities"]
            else:
                (flat,) = (t["data"] for t in content["outputs"] if t["name"] == "probabilities")
                values = np.reshape(flat, (7, 3))
            asked_at.append((began, np.float32(values).tolist()))
        connection.close()

    with service(models) as port:
        threads = [threading.Thread(target=ask_on, args=(port, i)) for i in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        put(exports[1], folder / "2")
        while time.monotonic() < end:
            watcher.look()
            if not swapped and 2 in models["age"].versions:
                swapped.append(time.monotonic())
            time.sleep(0.1)
        for thread in threads:
            thread.join()
        new = answer_of(models["age"].versions[2])
    assert old != new and len(asked_at) > 100
    (when,) = swapped
    assert all(values in (old, new) for _, values in asked_at)
    assert {began > when for began, values in asked_at if values == new} >= {True}
    assert all(values == new for began, values in asked_at if began > when)


def test_the_command_takes_up_versions(folder, exports):
    command = [fresh_python(), "bin/serve", str(folder), "--port", "0", "--poll-s", "0.2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        first, ready = process.stdout.readline(), process.stdout.readline()
        url = re.fullmatch(r"ready +(http://127\.0\.0\.1:\d+)\n", ready)[1]
        assert first == f"{url}/v1/models/age/versions/1\n"
        (folder / "2").mkdir()
        said = next(line for line in process.stderr if not line.startswith("note:"))
        assert f"not served: `{folder}/2` must hold a saved_model" in said
        put(exports[1], folder / "3")
        assert process.stdout.readline() == f"taken up     {url}/v1/models/age/versions/3\n"
        assert process.stdout.readline() == f"released     {url}/v1/models/age/versions/1\n"
        port = int(url.rsplit(":", 1)[1])
        status, answer = post(port, {"inputs": X.tolist()}, f"{MODEL}/versions/3:predict")
        assert status == 200 and len(answer["outputs"]["label"]) == 7
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        stack.pop_all()


def test_metrics_are_told_while_models_come_and_go(served):
    models, _, _ = served
    models |= {f"more{k}": models["age"] for k in range(50_000)}
    ends = threading.Event()

    def change():
        while not ends.is_set():  # one of them in each round, between which threads take turns
            if models.pop("another", None) is None:
                models["another"] = models["age"]

    thread = threading.Thread(target=change)
    with service(models) as port:
        thread.start()
        codes = set()
        for _ in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/metrics")
            codes.add(connection.getresponse().status)
            connection.close()
        ends.set()
        thread.join()
    assert codes == {200}


def test_what_is_known_of_versions_goes_with_them(served, folder):
    """Else years of new versions would fill the memory."""
    models, watcher, _ = served
    for number in range(2, 5):
        (folder / str(number)).mkdir()
        watcher.look()
        watcher.look()
        assert models["age"].others == {number: "END"}
        (folder / str(number)).rmdir()
        watcher.look()
        assert models["age"].others == {}
        assert watcher._stamps.keys() <= {folder / "1"} and not watcher._refused


def test_what_is_said_of_moved_rows_ends_with_its_version():
    names = ("rows", "alarms", "moved", "log10_evidence", "log10_limit")
    metrics, watch = ServiceMetrics(), SimpleNamespace(**dict.fromkeys(names, 7))
    metrics.watched({("age", 1): watch})
    metrics.watched({("age", 2): watch})
    text = metrics.text().decode()
    assert 'kerasmlp_moved{model="age",version="2"} 7.0' in text and 'version="1"' not in text
