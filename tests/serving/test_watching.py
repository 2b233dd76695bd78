"""`serve` watches whether rows have moved: by its own bets, and end to end by /metrics."""

import asyncio
import http.client
import json
import logging
import math
import random
import re
import shutil

import numpy as np
import pytest
from damage import without_hashes
from test_export import WIDTH, make_run
from test_export_heads import THREE

pytest.importorskip("aiohttp", reason="needs aiohttp (extra `serve`)")
pytest.importorskip("orjson", reason="needs orjson (extra `serve`)")
pytest.importorskip("prometheus_client", reason="needs prometheus_client (extra `serve`)")
from served import post, service

from kerasmlp import InputError, Predictor, export_model
from kerasmlp.cli import run_command
from kerasmlp.data.targets import Target
from kerasmlp.runs.reference import answer_scores
from kerasmlp.serving.server import watching
from kerasmlp.serving.server.served_models import load_models
from kerasmlp.serving.server.served_version import ServedVersion
from kerasmlp.serving.server.watching import PLAIN, WINDOW_ROWS, Watch
from kerasmlp.training.reference_fitting import directions_of, fit_reference
from kerasmlp.uncertainty.exchangeability import ConformalStream, JumperMartingale
from kerasmlp.utils.files import write_json

MIXED = np.linalg.cholesky(0.9 * np.ones((WIDTH, WIDTH)) + 0.1 * np.eye(WIDTH))


def drawn(rows, seed):
    return (np.random.default_rng(seed).normal(size=(rows, WIDTH)) @ MIXED.T).astype("float32")


def with_reference(path, target):
    make_run(path, target, dropout_rate=0.3)
    heads, kept = Predictor.heads(path), drawn(400, 1)
    answers = {
        p.name: (answer_scores(p.target, p.probabilities(kept)), np.arange(400)) for p in heads
    }
    found = fit_reference(directions_of(drawn(900, 0), 0), kept, np.arange(400), answers, 0)
    write_json(path / "reference.json", found.to_json())
    without_hashes(path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    run = with_reference(tmp_path_factory.mktemp("run"), Target("kind", ("a", "b", "c")))
    folder = tmp_path_factory.mktemp("served") / "kinds"
    export_model(run, folder)
    return run, folder


@pytest.fixture
def models(exported):
    return load_models([exported[1]])


class Clock:
    """Seconds that a test lets pass; far more of them than rows that could be looked at."""

    def __init__(self, step=10.0):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def watch_of(exported, heads=None, clock=None):
    return Watch(Predictor(exported[0]).reference, heads or {}, clock or Clock())


def test_evidence_is_that_of_streams_and_martingales(exported):
    watch, reference = watch_of(exported), Predictor(exported[0]).reference
    rows = drawn(40, 2)
    scores, rng = reference.of_rows(rows), random.Random(0)
    steps = {k: max(np.std(v) / 1000, 1e-5 * v.max()) for k, v in reference.scores.items()}
    streams = {k: ConformalStream(np.rint(v / steps[k]), rng) for k, v in reference.scores.items()}
    martingales = {k: JumperMartingale() for k in streams}
    for i in range(40):
        watch.see(PLAIN, rows[i : i + 1], {})
        for name, column in scores.items():
            martingales[name].bet(streams[name].next(np.rint(column[i] / steps[name])))
        expected = max(m.log10_capital for m in martingales.values())
        assert watch.log10_evidence == pytest.approx(expected, abs=1e-9)
    assert watch.log10_limit == pytest.approx(math.log10(2 * 2 / 0.01))
    assert (watch.rows, watch.alarms, watch.moved) == (40, 0, False)


def test_rows_that_have_not_moved_seldom_alarm_however_long(exported, monkeypatch):
    """Of 60 streams of three windows at 10% no more than chance allows (p > 0.001)."""
    monkeypatch.setattr(watching, "FALSE_ALARMS", 0.1)
    monkeypatch.setattr(watching, "WINDOW_ROWS", 100)
    reference, alarmed = Predictor(exported[0]).reference, 0
    for seed in range(60):
        kept = drawn(200, 1000 + seed)
        found = fit_reference(reference, kept, np.arange(200), {}, 0)
        watch, rows = Watch(found, {}, Clock()), drawn(300, 5000 + seed)
        for start in range(0, 300, 50):
            watch.see(PLAIN, rows[start : start + 50], {})
        assert watch.rows == 300
        alarmed += watch.alarms > 0
    assert alarmed <= 14


def test_moved_rows_alarm_once_a_window_until_they_are_back(exported):
    watch, moved, back = watch_of(exported), drawn(2100, 3) @ np.diag([-1, 1] * 8), drawn(5000, 4)
    alarms, at = [], []
    for i, row in enumerate(moved.astype("float32")):
        if (alarm := watch.see(PLAIN, row[None], {})) is not None:
            alarms.append(alarm)
            at.append(i)
    assert at[0] < 40 and WINDOW_ROWS < at[1] < WINDOW_ROWS + 60 and len(at) == 2
    assert set(alarms) <= {"along directions", "across directions"} and watch.moved
    assert watch.log10_limit == pytest.approx(math.log10(2 * 2 * 3 / 0.01))
    for start in range(0, 5000, 50):
        watch.see(PLAIN, back[start : start + 50], {})
    assert watch.alarms == 2 and not watch.moved and watch.rows == 7100


def test_a_row_asked_again_counts_once(exported):
    watch, row = watch_of(exported), drawn(1, 5)
    for _ in range(300):
        assert watch.see(PLAIN, row, {}) is None
    assert watch.rows == 1


@pytest.mark.parametrize("columns", [3, 8, 12])
def test_rows_of_few_values_are_no_alarm(columns):
    """They repeat by their nature, and each score is that of many rows, up to rounding."""
    alarmed, shares = 0, np.linspace(0.2, 0.5, columns)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = (rng.random((2500, columns)) < shares).astype("float32")
        number = (x @ np.linspace(0.1, 1, columns)).astype("float32")
        kept, many = slice(500, 1500), np.arange(1000)
        answers = {"a": (number[kept].astype(float), many)}
        found = fit_reference(directions_of(x[:500], 0), x[kept], many, answers, seed)
        watch = Watch(found, {"a": ("number", None)}, Clock())
        for start in range(1500, 2500, 50):
            rows = slice(start, start + 50)
            watch.see(PLAIN, x[rows], {"number": np.nextafter(number[rows], np.float32(9))})
        assert watch.rows == 1000
        alarmed += watch.alarms
        moved = (rng.random((400, columns)) < shares + 0.3).astype("float32")
        for start in range(0, 400, 50):
            of_rows = {"number": moved[start : start + 50] @ np.linspace(0.1, 1, columns)}
            watch.see(PLAIN, moved[start : start + 50], of_rows)
        assert watch.moved
    assert alarmed <= 1


def test_of_many_rows_some_are_looked_at(exported):
    watch = watch_of(exported, clock=Clock(step=0.125))
    counts = []
    for seed in range(5):
        watch.see(PLAIN, drawn(400, 10 + seed), {})
        counts.append(watch.rows)
    assert counts == [100, 112, 125, 137, 150]


def test_answers_are_watched_where_they_are_deterministic(exported, models):
    (version,) = models["kinds"].versions.values()
    watch = version.watch
    assert set(watch._known) == {"along directions", "across directions", "answers on kind"}
    rows = drawn(30, 6)
    outputs = version.run(PLAIN, {"embedding": rows})
    p = outputs["probabilities"].astype(float)
    column = watching._answer_scores(outputs["probabilities"], np.arange(3))
    np.testing.assert_allclose(column, -(p * np.log(p)).sum(axis=1), rtol=1e-6)
    predictor = Predictor(exported[0])
    expected = answer_scores(predictor.target, predictor.probabilities(rows))
    np.testing.assert_allclose(column, expected, rtol=1e-3)
    before = watch._martingales["answers on kind"].log10_capital
    watch.see("serve_mc", rows[:15], {})
    assert watch._martingales["answers on kind"].log10_capital == before
    watch.see(PLAIN, rows[15:], {k: v[15:] for k, v in outputs.items()})
    assert watch._martingales["answers on kind"].log10_capital != before
    assert len(predictor.reference.answers["kind"]) == 400


@pytest.mark.slow
def test_every_head_of_several_is_watched(tmp_path):
    run = with_reference(tmp_path / "run", THREE)
    export_model(run, tmp_path / "three")
    (version,) = load_models([tmp_path / "three"])["three"].versions.values()
    names = {"answers on Größe (cm)/x", "answers on gender", "answers on age"}
    assert names < set(version.watch._known)
    rows = drawn(20, 7)
    outputs = version.run(PLAIN, {"embedding": rows})
    version.watch.see(PLAIN, rows, outputs)
    for predictor in Predictor.heads(run):
        output, classes = version.watch._heads[predictor.name]
        found = watching._answer_scores(outputs[output], classes)
        expected = answer_scores(predictor.target, predictor.probabilities(rows))
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def metrics(port):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.findall(r'^kerasmlp_(\w+)\{model="kinds",version="1"\} (\S+)$', text, re.M)
    return {name: float(value) for name, value in found}


def test_metrics_tell_of_moved_rows_end_to_end(models, caplog):
    with service(models) as port:
        quiet = metrics(port)
        assert quiet["watched_rows"] == quiet["moved"] == quiet["moved_alarms"] == 0
        assert quiet["moved_limit"] == pytest.approx(math.log10(3 * 2 / 0.01))
        path = "/v1/models/kinds:predict"
        status, first = post(port, {"inputs": drawn(30, 8).tolist()}, path)
        assert status == 200 and len(first["outputs"]["label"]) == 30
        calm = metrics(port)
        assert calm["watched_rows"] == 30 and calm["moved"] == 0
        turned = (drawn(60, 9) * np.array([1, -1] * 8)).tolist()
        refused = [*turned[:2], [3e38] * WIDTH]
        assert post(port, {"inputs": refused}, path)[0] == 400
        assert metrics(port)["watched_rows"] == 30  # what has no answer is no row
        with caplog.at_level(logging.WARNING, "kerasmlp.serving"):
            inputs = {"embedding": turned, "num_samples": 2, "seed": 0}
            asked = {"signature_name": "serve_mc", "inputs": inputs}
            assert post(port, asked, path)[0] == 200
        alarmed = metrics(port)
        assert alarmed["watched_rows"] == 90 and alarmed["moved"] == alarmed["moved_alarms"] == 1
        assert alarmed["moved_evidence"] > alarmed["moved_limit"]
        (said,) = [r.getMessage() for r in caplog.records if "have moved" in r.getMessage()]
        assert said.startswith("kinds/1: the rows asked for have moved, told by the ")
        assert "the directions in which" in said or "the answers on kind" in said


def test_a_model_without_reference_is_served_and_said(exported, tmp_path, capsys, monkeypatch):
    older = shutil.copytree(exported[1], tmp_path / "older")
    (older / "1" / "assets.extra" / "reference.json").unlink()
    (version,) = load_models([older])["older"].versions.values()
    assert version.watch is None
    with service(load_models([older])) as port:
        asked = {"inputs": drawn(3, 0).tolist()}
        assert post(port, asked, "/v1/models/older:predict")[0] == 200
        assert metrics(port) == {}
    monkeypatch.setattr(asyncio, "run", lambda work: work.close())
    assert run_command("serve", [str(older), str(exported[1])]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "reference" in line]
    assert len(notes) == 1 and notes[0].startswith("note: older/versions/1 holds no reference")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"width": 8}, "of width 16"),
        (lambda c: c | {"answers": {"other": c["answers"]["kind"]}}, "of this model"),
        (lambda c: c | {"answers": {"kind": c["answers"]["kind"][::-1]}}, "rising scores"),
        (lambda c: c | {"scores": {}, "directions": None, "center": None, "answers": {}}, "none"),
        (lambda c: "[" * 100, "must be a JSON file"),
        (lambda c: " " * (1 << 22) + "{}", "must have at most 4194304 bytes"),
    ],
)
def test_a_hostile_reference_is_one_sentence(change, message, exported, tmp_path):
    folder = shutil.copytree(exported[1], tmp_path / "kinds")
    path = folder / "1" / "assets.extra" / "reference.json"
    new = change(json.loads(path.read_text()))
    path.write_text(new if isinstance(new, str) else json.dumps(new))
    with pytest.raises(InputError, match=re.escape(str(path))) as caught:
        load_models([folder])
    assert message in str(caught.value)


def test_a_description_that_lies_about_classes_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported[1], tmp_path / "kinds")
    path = folder / "1" / "assets" / "model.json"
    whole = json.loads(path.read_text())
    for classes in ([0, 1], [0, 1, 3], [0, 1, 1 << 40], "x", [[0]]):
        path.write_text(json.dumps(whole | {"class_to_label": classes}))
        version = ServedVersion(folder / "1")
        with pytest.raises(InputError, match=r"reference.json` must be the reference of"):
            version.warm_up()


def test_a_description_that_takes_probabilities_for_a_number_is_refused(exported, tmp_path):
    """Each request would fail."""
    folder = shutil.copytree(exported[1], tmp_path / "kinds")
    path = folder / "1" / "assets" / "model.json"
    heads = {"kind": {"outputs": {"number": "probabilities"}}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"heads": heads}))
    with pytest.raises(InputError, match=r"reference.json` must be the reference of"):
        load_models([folder])


def test_classes_are_summed_up_however_many_there_are():
    values = np.random.default_rng(0).dirichlet(np.ones(20_000), 3).astype("float32")
    found = watching._answer_scores(values, np.arange(20_000) // 4 % 2500)
    sums = np.stack([values[:, k::10_000].sum(1) for k in range(10_000)], axis=1, dtype=float)
    sums = sums.reshape(3, 2500, 4).sum(axis=2)
    np.testing.assert_allclose(found, -(sums * np.log(sums)).sum(axis=1), rtol=1e-5)


def test_rows_without_scores_fill_a_window_too(exported):
    """What is asked for is forgotten with its window."""
    watch, rows = watch_of(exported, {"kind": ("p", np.arange(3))}), drawn(2050, 11)
    for start in range(0, 2050, 50):
        watch.see(PLAIN, rows[start : start + 50], {"p": np.full((50, 3), np.nan)})
    assert watch.rows == 0 and len(watch._asked) == 50


def test_a_link_in_the_place_of_a_reference_is_not_followed(exported, tmp_path):
    folder = shutil.copytree(exported[1], tmp_path / "kinds")
    path = folder / "1" / "assets.extra" / "reference.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InputError, match="a link"):
        load_models([folder])
