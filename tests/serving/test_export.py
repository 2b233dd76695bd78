"""Exported models, asked as TensorFlow Serving asks them and held against their run."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import keras
import numpy as np
import pytest
import tensorflow as tf
from damage import without_hashes
from data_sets import ROOT
from forked import fresh_python

from kerasmlp import InputError, ResidualMLP
from kerasmlp.cli import run_command
from kerasmlp.data.targets import Target, age_target
from kerasmlp.layers.gaussian_head import GaussianHead
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.calibration import RunCalibration
from kerasmlp.runs.conformal_groups import ConformalGroups, GroupLimits
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.serving.export.saved_model import export_model
from kerasmlp.serving.export.version_folder import new_version
from kerasmlp.serving.export.warmup import PLACE
from kerasmlp.serving.server.served_models import load_models
from kerasmlp.uncertainty.abstention import Abstention
from kerasmlp.uncertainty.samples import predict_uncertainty

WIDTH = 16
X = np.random.default_rng(0).normal(size=(7, WIDTH)).astype("float32")


def make_run(path, target, **network):
    """A finished run with weights of no meaning, and batch norm that has seen rows."""
    model = ResidualMLP(heads=target.network_head, width=WIDTH, seed=0, **network)
    for _ in range(5):
        model(3 * X, training=True)
    for layer in model.layers:
        if isinstance(layer, GaussianHead):
            layer.set_unit(center=170.0, scale=10.0, spread=1.1)
    config = {
        "target": target.to_config(),
        "recipe": Recipe().to_config(),
        "width": WIDTH,
        "embedder": "made.onnx",
        "embedder_sha256": "0" * 64,
        "normalized": False,
        "data_digest": "d",
    }
    run = RunFolder(path)
    with run.working(config, resume=False, force=False):
        model.save(run / "model.keras")
        each = {"temperature": 1.25}
        several = len(target.heads) > 1
        run.finish({"heads": {h.name: each for h in target.heads}} if several else each)
    return path


def served(path):
    return tf.saved_model.load(str(path)).signatures


def ask_mc(signatures, x, num_samples, seed):
    answer = signatures["serve_mc"](
        embedding=tf.constant(x, tf.float32),
        num_samples=tf.constant(num_samples, tf.int32),
        seed=tf.constant(seed, tf.int64),
    )
    return {k: v.numpy() for k, v in answer.items()}


def ask(signatures, x):
    answer = signatures["serving_default"](embedding=tf.constant(x, tf.float32))
    return {k: v.numpy() for k, v in answer.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    target = age_target("age_years", "adience", by_years=True)
    path = make_run(tmp_path_factory.mktemp("run"), target, dropout_rate=0.3, use_output_ic=True)
    RunCalibration(
        rows=400,
        num_samples=32,
        offsets_years={
            "deterministic": {"50": 0.0, "90": 9.0},
            "mc_mean": {"50": 1.5, "90": -40.0},
        },
        abstention=Abstention([0.5, 1.5], [300, 400], [3, 30]),
        mc_temperature=0.7,
        set_thresholds={"mc_mean": 0.8},
        groups=ConformalGroups(
            ("predicted",),
            {
                "mc_mean": tuple(
                    GroupLimits(
                        (name,), 50, {"50": 2.0 + k, "90": 5.0 + k, "set_90": 0.3 + 0.05 * k}
                    )
                    for k, name in enumerate(target.measured_names[1:])
                )
            },
        ),
    ).save(path / "calibration.json")
    without_hashes(path)  # without the hashes of what was trained
    return path


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_model(run, tmp_path_factory.mktemp("served") / "age")["version"]


@pytest.fixture(scope="module")
def signatures(exported):
    return served(exported)


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor(run)


@pytest.mark.parametrize("rows", [0, 1, 7, 4096])
def test_the_deterministic_signature_answers_as_the_run(rows, signatures, predictor):
    x = np.resize(X, (rows, WIDTH))
    answer = ask(signatures, x)
    assert answer["probabilities"].shape == (rows, 101)
    assert answer["label"].shape == answer["age_years"].shape == (rows,)
    if rows:
        expected = predictor.probabilities(x)
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
        rowwise = list(predictor.rows(x[:7], num_samples=0, seed=0))
        assert [r["age_group"] for r in rowwise] == [s.decode() for s in answer["label"][:7]]
        ages = [r["age_years"] for r in rowwise]
        np.testing.assert_allclose(answer["age_years"][:7], ages, rtol=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 7, 4096])
def test_mc_answers_are_those_of_the_local_sampler(rows, signatures, predictor):
    x = np.resize(X, (rows, WIDTH))
    answer = ask_mc(signatures, x, 20, 2**40 + 3)
    assert sorted(answer) == [
        "age_interval_90", "age_years", "label", "mutual_information_nats",
        "predictive_entropy_nats", "probabilities", "set_90",
    ]  # fmt: skip
    assert answer["probabilities"].shape == (rows, 101)
    assert answer["age_interval_90"].shape == (rows, 2)
    if rows:
        how = {"num_samples": 20, "seed": 2**40 + 3, "masks": "shared"}
        expected = predict_uncertainty(predictor.mc_model, x, **how)
        np.testing.assert_allclose(answer["probabilities"], expected["mean"], atol=1e-6)
        for name in ("predictive_entropy_nats", "mutual_information_nats"):
            np.testing.assert_allclose(answer[name], expected[name], atol=5e-5)
        intervals = predictor.intervals(expected["mean"], sampled=True)[90]
        np.testing.assert_allclose(answer["age_interval_90"], intervals, atol=1e-2)
        sets = predictor.sets(expected["mean"], sampled=True)
        np.testing.assert_array_equal(answer["set_90"].astype(bool), sets)
        assert (answer["mutual_information_nats"] > 0).all()


def test_uncertainty_by_plain_numpy(signatures, predictor):
    """One pass has no disagreement; the entropy is that of the probabilities."""
    answer = ask_mc(signatures, X, 1, 5)
    p = answer["probabilities"].astype(float)
    np.testing.assert_allclose(answer["mutual_information_nats"], 0, atol=1e-5)
    np.testing.assert_allclose(
        answer["predictive_entropy_nats"], -(p * np.log(p)).sum(axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(answer["age_years"], p @ np.arange(101), rtol=1e-5)


def test_no_request_changes_what_another_gets(signatures):
    before, first = ask(signatures, X), ask_mc(signatures, X, 30, 1)
    for seed in range(50):
        ask_mc(signatures, X[: 1 + seed % 7], 1 + seed, seed)

    def both(_):
        return ask(signatures, X), ask_mc(signatures, X, 30, 1)

    with ThreadPoolExecutor(4) as pool:
        for plain, sampled in pool.map(both, range(20)):
            for key, value in before.items():
                np.testing.assert_array_equal(plain[key], value)
            for key, value in first.items():
                np.testing.assert_array_equal(sampled[key], value)


def test_a_rows_answer_does_not_depend_on_the_rows_beside_it(signatures):
    """As when a server merges requests: each with its own number of samples and seed."""
    num_samples, seeds = [3, 40, 7, 40, 1, 9, 64], [5, 2**62, 7, 0, 0, 5, 3]
    merged = ask_mc(signatures, X, num_samples, seeds)
    for i in range(7):
        alone = ask_mc(signatures, X[i : i + 1], num_samples[i], seeds[i])
        for key in set(alone) - {"label"}:
            np.testing.assert_allclose(alone[key][0], merged[key][i], atol=2e-3, rtol=1e-4)
        np.testing.assert_allclose(alone["probabilities"][0], merged["probabilities"][i], atol=1e-6)
    assert abs(ask_mc(signatures, X, 3, 5)["probabilities"] - merged["probabilities"]).max() > 1e-4


def test_rows_of_one_seed_share_their_masks(signatures):
    """However it is said: the bits are those of one number for all rows."""
    for_all = ask_mc(signatures, X, 24, 6)
    per_row = ask_mc(signatures, X, [24] * 7, [6] * 7)
    for key, values in for_all.items():
        np.testing.assert_array_equal(per_row[key], values)
    among_others = ask_mc(signatures, X, [24] * 7, [6, 6, 6, 1, 6, 6, 6])["probabilities"]
    others = np.delete(for_all["probabilities"] - among_others, 3, axis=0)
    np.testing.assert_allclose(others, 0, atol=1e-6)
    assert abs(for_all["probabilities"] - among_others)[3].max() > 1e-4


def test_many_passes_are_computed_in_steps(signatures, predictor):
    """4,096 rows leave room for one pass at a time, 1,000 for four; five do not divide them."""
    for rows, num_samples in ((4096, 3), (1000, 5)):
        x = np.resize(X, (rows, WIDTH))
        mean = ask_mc(signatures, x, num_samples, 9)["probabilities"]
        few = ask_mc(signatures, X, num_samples, 9)["probabilities"]
        np.testing.assert_allclose(mean[:7], few, atol=1e-6)


def test_what_overflows_inside_has_no_label(signatures):
    x = X.copy()
    x[2] = 3e38
    answers = ask(signatures, x), ask_mc(signatures, x, 5, 0)
    unknown = [np.isnan(answer["probabilities"]).all(axis=1) for answer in answers]
    assert np.any(unknown)
    for answer, rows in zip(answers, unknown, strict=True):
        assert ((answer["label"] == b"") == rows).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_stays_in_its_row(signatures, value):
    x = X.copy()
    x[2, 3] = value
    for answer in (ask(signatures, x), ask_mc(signatures, x, 5, 0)):
        for key in set(answer) - {"label"}:
            assert np.isnan(answer[key][2]).all()
        assert answer["label"][2] == b""
        assert np.isfinite(np.delete(answer["probabilities"], 2, axis=0)).all()
        assert (np.delete(answer["label"], 2) != b"").all()


@pytest.mark.parametrize(
    ("num_samples", "seed", "message"),
    [
        (0, 0, r"`num_samples` must be from 1 to 4096. Received: num_samples=\] \[0\]"),
        (4097, 0, r"`num_samples` must be from 1 to 4096. Received: num_samples=\] \[4097\]"),
        (8, -1, "`seed` must be >= 0. Received: seed="),
        ([8, 8], 0, "`num_samples` must be one number, or one per row of `embedding`"),
        (8, [1] * 6, "`seed` must be one number, or one per row"),
    ],
)
def test_bad_requests_are_refused(signatures, num_samples, seed, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        ask_mc(signatures, X, num_samples, seed)


def tensors_of(infos):
    return {
        name: (
            tf.dtypes.as_dtype(info.dtype).name,
            tf.TensorShape(info.tensor_shape).rank and list(tf.TensorShape(info.tensor_shape)),
        )
        for name, info in infos.items()
    }


def test_exactly_the_documented_signatures(exported):
    from tensorflow.python.tools import saved_model_utils  # what saved_model_cli reads with

    definitions = dict(saved_model_utils.get_meta_graph_def(exported, "serve").signature_def)
    assert definitions.pop("__saved_model_init_op")  # TensorFlow's own
    assert set(definitions) == {"serving_default", "serve_mc"}
    rows = {
        "probabilities": ("float32", [None, 101]),
        "label": ("string", [None]),
        "age_years": ("float32", [None]),
    }
    plain, sampled = definitions["serving_default"], definitions["serve_mc"]
    embedding = {"embedding": ("float32", [None, WIDTH])}
    assert tensors_of(plain.inputs) == embedding
    assert tensors_of(plain.outputs) == rows
    numbers = {"num_samples": ("int32", None), "seed": ("int64", None)}
    assert tensors_of(sampled.inputs) == embedding | numbers
    assert tensors_of(sampled.outputs) == rows | {
        "predictive_entropy_nats": ("float32", [None]),
        "mutual_information_nats": ("float32", [None]),
        "age_interval_90": ("float32", [None, 2]),
        "set_90": ("float32", [None, 8]),
    }


def test_what_a_client_must_know_travels_along(exported, run):
    with open(f"{exported}/assets/model.json", encoding="utf-8") as file:
        described = json.load(file)
    assert described["class_names"][100] == "100" and described["class_age_years"][100] == 100
    assert described["label_names"][described["class_to_label"][30]] == "25-32"
    assert described["embedder_sha256"] == "0" * 64 and described["width"] == WIDTH
    assert described["temperature"] == 1.25 and described["max_samples"] == 4096
    thresholds = described["risk_thresholds_nats"]
    assert (thresholds["0.01"], thresholds["0.05"], thresholds["0.2"]) == (None, 0.5, 1.5)
    assert described["risk_min_samples"] == 32
    with open(f"{exported}/saved_model.pb", "rb") as file:
        assert os.fsencode(run) not in file.read()


def test_float32_after_training_in_half_precision(tmp_path):
    target = Target("gender", ("male", "female"))
    half = make_run(tmp_path / "half", target, dtype="mixed_float16")
    result = export_model(half, tmp_path / "gender")
    plain = ResidualMLP(num_classes=2, width=WIDTH)
    plain.set_weights(Predictor(half).model.get_weights())
    answer = ask(served(result["version"]), X)
    assert sorted(answer) == ["label", "probabilities"]
    expected = plain.predict(X, verbose=0)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    names = np.array([b"male", b"female"])
    np.testing.assert_array_equal(answer["label"], names[expected.argmax(axis=1)])
    graph = tf.saved_model.load(result["version"]).signatures["serve_mc"].graph
    kinds = {t.dtype for op in graph.get_operations() for t in op.outputs}
    assert tf.float16 not in kinds


def test_a_model_without_dropout_has_one_signature(tmp_path):
    target = Target("race", ("a", "b", "c"))
    run = make_run(tmp_path / "run", target, dropout_rate=0.0)
    result = export_model(run, tmp_path / "race")
    assert result["signatures"] == ["serving_default"]
    assert set(served(result["version"])) == {"serving_default"}


def test_the_next_version_keeps_what_is_beside_it(run, tmp_path, capsys):
    destination = tmp_path / "age"
    (destination / "7").mkdir(parents=True)
    (destination / "models.config").write_text("mine")
    assert run_command("export-model", [str(run), str(destination)]) == 0
    printed = capsys.readouterr().out
    assert f"kept         {destination / 'models.config'}" in printed
    assert f"written      {destination / 'docker-compose.yml'}" in printed
    assert printed.endswith(f"version      {destination / '8'}\n")
    assert (destination / "models.config").read_text() == "mine"
    assert (destination / "8" / "saved_model.pb").stat().st_mode & 0o044 == 0o044
    assert sorted(p.name for p in destination.iterdir()) == [
        "7", "8", "batching_parameters.txt", "docker-compose.yml", "models.config",
    ]  # fmt: skip


def test_bad_places(run, tmp_path, capsys):
    def refused(*arguments):
        assert run_command("export-model", [str(a) for a in arguments]) == 2
        return capsys.readouterr().err

    (tmp_path / "file").write_text("")
    assert "must be a run folder. Received: no such file" in refused(tmp_path / "no", tmp_path)
    assert "must be a folder. Received: a file" in refused(run, tmp_path / "file")
    assert "must be a folder of its own. Received: a run folder" in refused(run, run)
    assert "must end in a name of letters" in refused(run, tmp_path / "ä b")
    assert not (tmp_path / "ä b").exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("")
    assert "Received: a folder with thesis.txt" in refused(run, tmp_path / "precious")
    other = tmp_path / "other" / "3" / "assets"
    other.mkdir(parents=True)
    (other / "model.json").write_text('{"label": "species"}')
    assert "versions of age. Received: a version of species" in refused(run, tmp_path / "other")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["3"]


def test_a_damaged_run(run, tmp_path, capsys):
    broken = shutil.copytree(run, tmp_path / "run")
    kept = {name: (broken / name).read_text() for name in ("config.json", "report.json")}
    for name, text, message in (
        ("config.json", "[1, 2]", "config.json` must hold an object. Received: list"),
        ("config.json", "{}", "must be that of a run whose `format` is"),
        ("report.json", "{}", "report.json` must hold a temperature. Received: None"),
    ):
        (broken / name).write_text(text)
        assert run_command("export-model", [str(broken), str(tmp_path / "age")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "age").exists()
        (broken / name).write_text(kept[name])
    (broken / "calibration.json").unlink()
    assert run_command("export-model", [str(broken), str(tmp_path / "age")]) == 0
    assert "calibration  none in the run" in capsys.readouterr().out
    (tmp_path / "age" / "1" / "assets" / "model.json").write_text("{}")
    with pytest.raises(InputError, match="model.json` must hold an integer width"):
        load_models([tmp_path / "age"])


def test_a_model_of_nan_is_not_exported(run, tmp_path):
    broken = shutil.copytree(run, tmp_path / "run")
    model = Predictor(broken).model
    model.get_layer("logits").set_weights(
        [np.nan * w for w in model.get_layer("logits").get_weights()]
    )
    model.save(broken / "model.keras")
    with pytest.raises(InputError, match="finite"):
        export_model(broken, tmp_path / "age")
    assert not (tmp_path / "age").exists()


def test_a_killed_export_leaves_no_version(tmp_path):
    code = (
        "import os, sys\n"
        "from kerasmlp.serving.export.version_folder import new_version\n"
        "with new_version(sys.argv[1]) as (temporary, final):\n"
        "    (temporary / 'saved_model.pb').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    command = [fresh_python(), "-c", code, str(tmp_path)]
    killed = subprocess.run(command, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert not [p for p in tmp_path.iterdir() if p.name.isdecimal()]
    with new_version(tmp_path) as (temporary, _):
        assert not list(temporary.iterdir())
        with pytest.raises(InputError, match="must not be in use"), new_version(tmp_path):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_a_failed_export_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="full"), new_version(tmp_path) as (temporary, _):
        (temporary / "a").write_text("half")
        raise OSError("full")
    assert not list(tmp_path.iterdir())


def test_the_warm_up_file_is_one_of_tensorflow_serving(exported, signatures):
    prediction_log_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2", reason="needs tensorflow-serving-api"
    )
    asked = {}
    for record in tf.data.TFRecordDataset(f"{exported}/{PLACE}"):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "age"
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        # a server that batches takes no scalars
        assert {len(v) for v in inputs.values()} == {1}
        signature = signatures[request.model_spec.signature_name]
        signature(**{k: tf.constant(v) for k, v in inputs.items()})
        asked[request.model_spec.signature_name] = set(inputs)
    sampled = {"embedding", "num_samples", "seed"}
    assert asked == {"serving_default": {"embedding"}, "serve_mc": sampled}


def test_the_configuration_is_one_of_tensorflow_serving(exported):
    config_pb2 = pytest.importorskip(
        "tensorflow_serving.config.model_server_config_pb2", reason="needs tensorflow-serving-api"
    )
    from google.protobuf import text_format

    with open(f"{exported}/../models.config", encoding="utf-8") as file:
        config = text_format.Parse(file.read(), config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (
        "age", "/models/age", "tensorflow"
    )  # fmt: skip


@contextlib.contextmanager
def server_saying(state):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/v1/models/age" else 404)
            self.end_headers()
            self.wfile.write(b'{"model_version_status": [{"state": "%s"}]}' % state)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.mark.parametrize("state", [b"AVAILABLE", b"LOADING", None])
def test_the_health_check_tells_a_server_that_answers(exported, state):
    with open(f"{exported}/../docker-compose.yml", encoding="utf-8") as file:
        compose = file.read()
    script = re.search(r">-\n((?: {10}.*\n)+)", compose)[1]
    script = " ".join(line.strip() for line in script.splitlines())  # as YAML folds it
    with server_saying(state) if state else contextlib.nullcontext(1) as port:
        check = subprocess.run(
            ["bash", "-c", script.replace("8501", str(port))], capture_output=True, timeout=60
        )
    assert (check.returncode == 0) == (state == b"AVAILABLE")


def test_variables_are_of_the_model_alone(exported):
    names = [n for n, _ in tf.train.list_variables(f"{exported}/variables/variables")]
    weights = [n for n in names if n.startswith("weights/")]
    model = ResidualMLP(num_classes=101, width=WIDTH, dropout_rate=0.3, use_output_ic=True)
    assert len(weights) == len(model.weights) + 2  # the head of the passes has its temperature
    assert set(names) - set(weights) == {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    assert os.path.basename(exported) == "1" and keras.backend.backend() == "tensorflow"


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_onnx(dtype, tmp_path, capsys):
    pytest.importorskip("tf2onnx", reason="needs tf2onnx (extra `onnx`)")
    onnxruntime = pytest.importorskip("onnxruntime")
    run = make_run(tmp_path / "run", Target("race", ("a", "b", "c")), dtype=dtype)
    destination = tmp_path / "race.onnx"
    command = [str(run), str(destination), "--format", "onnx"]
    assert run_command("export-model", command) == 0
    assert capsys.readouterr() == (f"{destination}\n", "")
    session = onnxruntime.InferenceSession(destination, providers=["CPUExecutionProvider"])
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("embedding", ["rows", WIDTH])
    assert (answered.name, answered.shape) == ("probabilities", ["rows", 3])
    plain = ResidualMLP(num_classes=3, width=WIDTH)
    plain.set_weights(Predictor(run).model.get_weights())
    for rows in (0, 1, 7, 4096):
        x = np.resize(X, (rows, WIDTH))
        (outputs,) = session.run(None, {"embedding": x})
        assert outputs.shape == (rows, 3)
        if rows:
            np.testing.assert_allclose(outputs, plain.predict(x, verbose=0), atol=1e-6)
    described = json.loads(session.get_modelmeta().custom_metadata_map["kerasmlp"])
    assert described["class_names"] == ["a", "b", "c"] and described["width"] == WIDTH
    assert run_command("export-model", command) == 2
    assert "must not exist yet. Received: a file" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_litert(dtype, tmp_path, capfd):
    run = make_run(tmp_path / "run", Target("race", ("a", "b", "c")), dtype=dtype)
    destination = tmp_path / "race.tflite"
    command = [str(run), str(destination), "--format", "litert"]
    assert run_command("export-model", command) == 0
    assert capfd.readouterr().out == f"{destination}\n"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interpreter moves to a package of its own
        runner = tf.lite.Interpreter(str(destination)).get_signature_runner("serving_default")
    plain = ResidualMLP(num_classes=3, width=WIDTH)
    plain.set_weights(Predictor(run).model.get_weights())
    for rows in (1, 7, 4096):
        x = np.resize(X, (rows, WIDTH))
        answer = runner(embedding=x)["probabilities"]
        np.testing.assert_allclose(answer, plain.predict(x, verbose=0), atol=1e-6)
    described = json.loads(zipfile.ZipFile(destination).read("kerasmlp.json"))
    assert described["class_names"] == ["a", "b", "c"] and described["width"] == WIDTH
    assert run_command("export-model", command) == 2
    assert "must not exist yet. Received: a file" in capfd.readouterr().err
    assert run_command("export-model", [*command[:1], str(tmp_path / "b"), *command[2:]]) == 2
    assert "must end in .tflite" in capfd.readouterr().err


def test_onnx_refusals(run, tmp_path, capsys, monkeypatch):
    def refused(name):
        command = [str(run), str(tmp_path / name), "--format", "onnx"]
        assert run_command("export-model", command) == 2
        return capsys.readouterr().err

    assert "must end in .onnx" in refused("model")
    assert "must lie in an existing folder" in refused("none/model.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "`tf2onnx` must be installed to write ONNX" in refused("model.onnx")
    assert not list(tmp_path.iterdir())
