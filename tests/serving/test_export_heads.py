"""Exports of numbers, and of several heads on one trunk, held against their runs."""

import json
import subprocess
import warnings

import numpy as np
import pytest
import tensorflow as tf
from damage import without_hashes
from forked import fresh_python
from test_export import WIDTH, X, ask, ask_mc, make_run, served, tensors_of

from kerasmlp import InputError
from kerasmlp.cli import run_command
from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
from kerasmlp.data.targets import Target, age_target
from kerasmlp.runs.calibration import HEADS, RunCalibration
from kerasmlp.runs.number_calibration import NumberCalibration
from kerasmlp.runs.predictor import Predictor
from kerasmlp.serving.export.saved_model import export_model
from kerasmlp.serving.server.served_models import load_models
from kerasmlp.serving.server.served_version import ServedVersion
from kerasmlp.uncertainty.numbers import number_measures
from kerasmlp.uncertainty.samples import predict_uncertainty

ODD = "Größe (cm)/x"
"""A label as nobody names a tensor."""

THREE = SeveralTargets(
    (
        NumberTarget(ODD, "cm"),
        Target("gender", ("male", "female")),
        age_target("age_years", "adience", by_years=True),
    )
)


def calibration(**offsets):
    how = {"rows": 400, "num_samples": 32, "abstention": None}
    return RunCalibration(offsets_years=offsets, mc_temperature=0.7, **how).to_json()


OF_NUMBER = NumberCalibration(
    rows=400,
    num_samples=32,
    mc_temperature=1.3,
    quantiles={"deterministic": {"50": 0.6, "90": 1.9}, "mc_mean": {"50": 0.7, "90": 2.5}},
)


def make_three(path):
    """A calibrated run of an odd number, gender and age."""
    make_run(path, THREE, dropout_rate=0.3)
    heads = {
        ODD: OF_NUMBER.to_json(),
        "gender": calibration(),
        "age_years": calibration(mc_mean={"50": 1.5, "90": -40.0}),
    }
    (path / "calibration.json").write_text(json.dumps({"format": HEADS, "heads": heads}))
    without_hashes(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_three(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_model(run, tmp_path_factory.mktemp("served") / "three")["version"]


@pytest.fixture(scope="module")
def signatures(exported):
    return served(exported)


@pytest.fixture(scope="module")
def predictors(run):
    return {p.name: p for p in Predictor.heads(run)}


PLAIN = {
    ODD: ("float32", [None]),
    f"{ODD}_std": ("float32", [None]),
    f"{ODD}_interval_90": ("float32", [None, 2]),
    "gender": ("string", [None]),
    "gender_probabilities": ("float32", [None, 2]),
    "age_group": ("string", [None]),
    "age_years": ("float32", [None]),
    "age_probabilities": ("float32", [None, 101]),
}
SAMPLED = PLAIN | {
    name: ("float32", [None])
    for name in (
        f"{ODD}_aleatoric_std",
        f"{ODD}_epistemic_std",
        "gender_predictive_entropy_nats",
        "gender_mutual_information_nats",
        "age_predictive_entropy_nats",
        "age_mutual_information_nats",
    )
}
SAMPLED["age_interval_90"] = ("float32", [None, 2])


def test_exactly_the_documented_outputs(exported):
    from tensorflow.python.tools import saved_model_utils

    definitions = saved_model_utils.get_meta_graph_def(exported, "serve").signature_def
    assert tensors_of(definitions["serving_default"].outputs) == PLAIN
    assert tensors_of(definitions["serve_mc"].outputs) == SAMPLED


def test_the_deterministic_answers_are_those_of_the_heads(signatures, predictors):
    answer = ask(signatures, X)
    means = {name: p.probabilities(X) for name, p in predictors.items()}
    for name in ("gender", "age"):
        np.testing.assert_allclose(answer[f"{name}_probabilities"], means[name], atol=1e-6)
    rows = {name: list(p.rows(X, num_samples=0)) for name, p in predictors.items()}
    assert [r["gender"] for r in rows["gender"]] == [v.decode() for v in answer["gender"]]
    assert [r["age_group"] for r in rows["age"]] == [v.decode() for v in answer["age_group"]]
    ages = [r["age_years"] for r in rows["age"]]
    np.testing.assert_allclose(answer["age_years"], ages, rtol=1e-5)
    number, std = means[ODD].T
    np.testing.assert_allclose(answer[ODD], number, rtol=1e-6)
    np.testing.assert_allclose(answer[f"{ODD}_std"], std, rtol=1e-5)
    ends = np.stack([number - 1.9 * std, number + 1.9 * std], axis=1)
    np.testing.assert_allclose(answer[f"{ODD}_interval_90"], ends, rtol=1e-5)


def expected_mc(predictors, x, num_samples, seed):
    """What the sampler of the run says, by the names of outputs."""
    mc_model = predictors["gender"].mc_model
    how = {"num_samples": num_samples, "seed": seed, "masks": "shared"}
    found = predict_uncertainty(mc_model, x, **how)
    answer = {}
    for name, label in (("gender", "gender"), ("age", "age_years")):
        answer[f"{name}_probabilities"] = found[label]["mean"]
        for measure in ("predictive_entropy_nats", "mutual_information_nats"):
            answer[f"{name}_{measure}"] = found[label][measure]
    mean = found["age_years"]["mean"]
    answer["age_years"] = mean @ np.arange(101)
    answer["age_interval_90"] = predictors["age"].intervals(mean, sampled=True)[90]
    moments = number_measures(found[ODD])
    answer[ODD] = moments["mean"]
    for measure in ("aleatoric", "epistemic"):
        answer[f"{ODD}_{measure}_std"] = np.sqrt(moments[f"{measure}_variance"])
    answer[f"{ODD}_std"] = np.sqrt(moments["total_variance"])
    both = np.stack([answer[ODD], answer[f"{ODD}_std"]], axis=1)
    answer[f"{ODD}_interval_90"] = predictors[ODD].intervals(both, sampled=True)[90]
    return answer


def check_mc(answer, expected):
    assert set(answer) == set(SAMPLED) and set(expected) == set(SAMPLED) - {"gender", "age_group"}
    for name, values in expected.items():
        if name.startswith(ODD):
            np.testing.assert_allclose(answer[name], values, rtol=2e-4, err_msg=name)
        else:
            atol = 1e-6 if name.endswith("probabilities") else 1e-2 if "interval" in name else 5e-5
            np.testing.assert_allclose(answer[name], values, atol=atol, rtol=1e-5, err_msg=name)
    assert (answer[f"{ODD}_epistemic_std"] > 0.01).all()


@pytest.mark.parametrize("rows", [0, 7, 1000])
def test_mc_answers_are_those_of_the_local_sampler(rows, signatures, predictors):
    x = np.resize(X, (rows, WIDTH))
    answer = ask_mc(signatures, x, 5, 2**40 + 3)
    assert {k: v.shape for k, v in answer.items()} == {
        name: (rows, *shape[1:]) for name, (_, shape) in SAMPLED.items()
    }
    if rows:
        check_mc(answer, expected_mc(predictors, x, 5, 2**40 + 3))


def test_each_row_with_a_seed_of_its_own(signatures, predictors):
    """As when a server merges requests; each row is answered as if it were asked alone."""
    num_samples, seeds = [9, 9, 7, 40, 1, 3, 9], [5, 2**62, 7, 0, 0, 5, 3]
    merged = ask_mc(signatures, X, num_samples, seeds)
    for i in (0, 1, 6):
        expected = expected_mc(predictors, X[i : i + 1], num_samples[i], seeds[i])
        check_mc({k: v[i : i + 1] for k, v in merged.items()}, expected)
    np.testing.assert_allclose(merged[f"{ODD}_epistemic_std"][4], 0, atol=1e-4)  # of one pass


def test_rows_that_cannot_be_answered_are_blank_in_all_heads(signatures):
    x = X.copy()
    x[2, 3], x[4] = np.nan, 3e38
    for answer in (ask(signatures, x), ask_mc(signatures, x, 5, 0)):
        for name, values in answer.items():
            blank = values == b"" if values.dtype == object else np.isnan(values)
            blank = blank.reshape(7, -1)
            assert blank[[2, 4]].all() and not np.delete(blank, [2, 4], axis=0).any(), name


def test_tensorflow_alone_loads_it_and_mc_changes_no_bit(exported, signatures, tmp_path):
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys\n"
        "for name in ('keras', 'tf_keras', 'kerasmlp', 'h5py'): sys.modules[name] = None\n"
        "import numpy as np, tensorflow as tf\n"
        f"x = tf.constant(np.load({str(tmp_path / 'x.npy')!r}))\n"
        f"model = tf.saved_model.load({exported!r})\n"
        "plain, mc = (model.signatures[name] for name in ('serving_default', 'serve_mc'))\n"
        "before = plain(embedding=x)\n"
        "sampled = mc(embedding=x, num_samples=tf.constant(16), seed=tf.constant(4, tf.int64))\n"
        "for seed in range(1000):\n"
        "    rows = x[: 1 + seed % 2]\n"
        "    mc(embedding=rows, num_samples=tf.constant(2), seed=tf.constant(seed, tf.int64))\n"
        "after = plain(embedding=x)\n"
        "assert before.keys() == after.keys() and len(before) == 8\n"
        "for name, values in before.items():\n"
        "    assert np.array_equal(values, after[name]), name\n"
        f"np.savez({str(tmp_path / 'y.npz')!r}, p=before['gender_probabilities'],\n"
        f"    n=before[{ODD!r}], q=sampled['age_probabilities'], m=sampled[{ODD!r}])\n"
    )
    subprocess.run([fresh_python(), "-c", code], check=True, cwd=tmp_path)
    plain, sampled = ask(signatures, X), ask_mc(signatures, X, 16, 4)
    with np.load(tmp_path / "y.npz") as answers:
        np.testing.assert_array_equal(answers["p"], plain["gender_probabilities"])
        np.testing.assert_array_equal(answers["n"], plain[ODD])
        np.testing.assert_array_equal(answers["q"], sampled["age_probabilities"])
        np.testing.assert_array_equal(answers["m"], sampled[ODD])


def test_served_with_its_graph_read_first(exported, signatures):
    """And a row has the same bits whichever rows lie beside it."""
    version = ServedVersion(exported)
    version.warm_up()
    x = np.random.default_rng(1).normal(size=(97, WIDTH)).astype("float32")
    whole = version.run("serving_default", {"embedding": x})
    assert set(whole) == set(PLAIN)
    rng = np.random.default_rng(2)
    for rows in (1, 2, 3, 5, 8, 31, 64):
        some = rng.permutation(len(x))[:rows]
        for name, values in version.run("serving_default", {"embedding": x[some]}).items():
            np.testing.assert_array_equal(values, whole[name][some], err_msg=name)


def test_what_a_client_must_know_of_each_head(exported):
    with open(f"{exported}/assets/model.json", encoding="utf-8") as file:
        described = json.load(file)
    assert described["label"] == f"{ODD}-gender-age" and described["max_samples"] == 4096
    number, gender, age = (described["heads"][name] for name in (ODD, "gender", "age"))
    assert (number["unit"], number["mc_temperature"]) == ("cm", 1.3)
    assert number["interval_quantiles"]["mc_mean"]["90"] == 2.5
    assert gender["class_names"] == ["male", "female"] and gender["mc_temperature"] == 0.7
    assert age["interval_offsets_years"]["mc_mean"]["90"] == -40.0 and age["temperature"] == 1.25
    outputs = [name for head in (number, gender, age) for name in head["outputs"].values()]
    assert sorted(outputs) == sorted(SAMPLED)


@pytest.fixture(scope="module")
def number_run(tmp_path_factory):
    """Of columns that the model itself brings to one scale."""
    path = tmp_path_factory.mktemp("number")
    return make_run(path, NumberTarget("bmi", "kg/m²"), dropout_rate=0.3, standardize=True)


def test_a_single_number(number_run, run, tmp_path, capsys):
    result = export_model(number_run, tmp_path / "bmi")
    signatures, (predictor,) = served(result["version"]), Predictor.heads(number_run)
    number, std = predictor.probabilities(X).T
    answer = ask(signatures, X)
    assert sorted(answer) == ["interval_90", "number", "std"]
    np.testing.assert_allclose(answer["number"], number, rtol=1e-6)
    np.testing.assert_allclose(answer["std"], std, rtol=1e-5)
    width = np.diff(answer["interval_90"], axis=1)[:, 0]
    np.testing.assert_allclose(width, 2 * 1.6448536 * std, rtol=1e-5)  # not calibrated
    how = {"num_samples": 9, "seed": 3, "masks": "shared"}
    moments = number_measures(predict_uncertainty(predictor.mc_model, X, **how))
    answer = ask_mc(signatures, X, 9, 3)
    assert sorted(answer) == ["aleatoric_std", "epistemic_std", "interval_90", "number", "std"]
    np.testing.assert_allclose(answer["number"], moments["mean"], rtol=1e-6)
    for name, variance in (("std", "total"), ("aleatoric_std", "aleatoric")):
        np.testing.assert_allclose(answer[name] ** 2, moments[f"{variance}_variance"], rtol=1e-4)
    epistemic = moments["epistemic_variance"]
    np.testing.assert_allclose(answer["epistemic_std"] ** 2, epistemic, rtol=1e-3)
    described = json.loads((tmp_path / "bmi" / "1" / "assets" / "model.json").read_text())
    assert (described["label"], described["unit"]) == ("bmi", "kg/m²")
    # Another kind of answer, or other labels, are no later version of it.
    classes = make_run(tmp_path / "run", Target("bmi", ("low", "high")))
    for other, names in ((classes, "bmi"), (run, f"age, gender, the number {ODD}")):
        assert run_command("export-model", [str(other), str(tmp_path / "bmi")]) == 2
        said = f"must hold versions of {names}. Received: a version of the number bmi"
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("heads", [[], {"bmi": 3}, "bmi", {}])
def test_a_version_with_a_damaged_description(heads, number_run, tmp_path):
    (tmp_path / "bmi" / "1" / "assets").mkdir(parents=True)
    path = tmp_path / "bmi" / "1" / "assets" / "model.json"
    path.write_text(json.dumps({"heads": heads}))
    with pytest.raises(InputError, match="must hold versions of the number bmi. Received: a vers"):
        export_model(number_run, tmp_path / "bmi")


def test_outputs_of_one_name_are_refused(tmp_path):
    target = SeveralTargets((NumberTarget("bmi"), NumberTarget("bmi_std")))
    run = make_run(tmp_path / "run", target)
    with pytest.raises(InputError, match="whose outputs have different names. Received: two outp"):
        export_model(run, tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_a_run_is_served_under_a_name_of_its_labels(tmp_path):
    target = Target("ä/ b", ("x", "y"))
    (name,) = load_models([make_run(tmp_path / "run", target, dropout_rate=0.0)])
    assert name == "b"


def plain_outputs(predictors):
    (number, std), gender, age = (predictors[name].probabilities(X).T for name in predictors)
    answers = {ODD: number, f"{ODD}_std": std}
    return answers | {"gender_probabilities": gender.T, "age_probabilities": age.T}


def test_onnx(run, predictors, tmp_path, capsys):
    pytest.importorskip("tf2onnx", reason="needs tf2onnx (extra `onnx`)")
    onnxruntime = pytest.importorskip("onnxruntime")
    command = [str(run), str(tmp_path / "three.onnx"), "--format", "onnx"]
    assert run_command("export-model", command) == 0
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(tmp_path / "three.onnx", providers=providers)
    expected = plain_outputs(predictors)
    assert {o.name: o.shape[0] for o in session.get_outputs()} == dict.fromkeys(expected, "rows")
    for name, values in expected.items():
        (answer,) = session.run([name], {"embedding": X})
        np.testing.assert_allclose(answer, values, atol=1e-6, rtol=1e-5)
    described = json.loads(session.get_modelmeta().custom_metadata_map["kerasmlp"])
    assert list(described["heads"]) == [ODD, "gender", "age"]
    target = SeveralTargets((NumberTarget("embedding"), NumberTarget("bmi")))
    taken = make_run(tmp_path / "run", target)
    command = [str(taken), str(tmp_path / "taken.onnx"), "--format", "onnx"]
    assert run_command("export-model", command) == 2
    assert (
        "must have no output of the name of the input, to be written as ONNX"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_litert(run, number_run, predictors, tmp_path):
    (number, std) = Predictor(number_run).probabilities(X).T
    for path, expected in (
        (run, plain_outputs(predictors)),
        (number_run, {"number": number, "std": std}),
    ):
        destination = tmp_path / f"{path.name}.tflite"
        command = [str(path), str(destination), "--format", "litert"]
        assert run_command("export-model", command) == 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the interpreter moves to a package of its own
            runner = tf.lite.Interpreter(str(destination)).get_signature_runner("serving_default")
        answer = runner(embedding=X)
        assert answer.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(answer[name], values, atol=1e-6, rtol=1e-5)
