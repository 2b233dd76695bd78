"""Exports of several members, held against their runs."""

import subprocess

import numpy as np
import pytest
from forked import fresh_python
from test_export import X, ask, ask_mc, make_run, served

from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
from kerasmlp.data.targets import Target
from kerasmlp.runs.predictor import Predictor
from kerasmlp.serving.export.saved_model import export_model
from kerasmlp.serving.server.served_version import ServedVersion
from kerasmlp.uncertainty.samples import predict_uncertainty

BOTH = SeveralTargets((NumberTarget("height", "cm"), Target("gender", ("male", "female"))))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    make_run(path, BOTH, dropout_rate=0.3, members=3)
    return path


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_model(run, tmp_path_factory.mktemp("served") / "both")["version"]


@pytest.fixture(scope="module")
def signatures(exported):
    return served(exported)


def test_answers_are_those_of_the_run(run, signatures):
    height, gender = Predictor.heads(run)
    answer = ask(signatures, X)
    np.testing.assert_allclose(answer["gender_probabilities"], gender.probabilities(X), atol=1e-6)
    mean, std = height.probabilities(X).T
    np.testing.assert_allclose(answer["height"], mean, rtol=1e-5)
    np.testing.assert_allclose(answer["height_std"], std, rtol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 7, 32])
def test_passes_go_through_the_members(run, signatures, num_samples):
    _, gender = Predictor.heads(run)
    sampled = ask_mc(signatures, X, num_samples, 4)
    how = {"num_samples": num_samples, "seed": 4, "masks": "shared"}
    expected = predict_uncertainty(gender.mc_model, X, **how)["gender"]
    np.testing.assert_allclose(sampled["gender_probabilities"], expected["mean"], atol=1e-5)
    name = "mutual_information_nats"
    np.testing.assert_allclose(sampled[f"gender_{name}"], expected[name], atol=1e-5)


def test_tensorflow_alone_answers_alike(exported, signatures, tmp_path):
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys\n"
        "for name in ('keras', 'tf_keras', 'kerasmlp', 'h5py'): sys.modules[name] = None\n"
        "import numpy as np, tensorflow as tf\n"
        f"x = tf.constant(np.load({str(tmp_path / 'x.npy')!r}))\n"
        f"model = tf.saved_model.load({exported!r})\n"
        "plain, mc = (model.signatures[name] for name in ('serving_default', 'serve_mc'))\n"
        "before = plain(embedding=x)\n"
        "sampled = mc(embedding=x, num_samples=tf.constant(7), seed=tf.constant(4, tf.int64))\n"
        "after = plain(embedding=x)\n"
        "assert all(np.array_equal(v, after[k]) for k, v in before.items())\n"
        f"np.savez({str(tmp_path / 'y.npz')!r}, p=before['gender_probabilities'],\n"
        "    m=sampled['height'])\n"
    )
    subprocess.run([fresh_python(), "-c", code], check=True, cwd=tmp_path)
    with np.load(tmp_path / "y.npz") as answers:
        plain, sampled = ask(signatures, X), ask_mc(signatures, X, 7, 4)
        np.testing.assert_array_equal(answers["p"], plain["gender_probabilities"])
        np.testing.assert_array_equal(answers["m"], sampled["height"])


def test_its_graph_is_read_and_rows_do_not_know_of_each_other(exported):
    version = ServedVersion(exported)
    version.warm_up()
    x = np.random.default_rng(1).normal(size=(33, X.shape[1])).astype("float32")
    whole = version.run("serving_default", {"embedding": x})
    for k in (0, 7, 32):
        alone = version.run("serving_default", {"embedding": x[k : k + 1]})
        for name, values in alone.items():
            np.testing.assert_array_equal(values[0], whole[name][k], err_msg=name)
