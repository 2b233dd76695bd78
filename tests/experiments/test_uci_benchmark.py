"""`tests/benchmarks/uci.py` on a small made folder of the layout of the UCI experiments."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("jax")
from data_sets import ROOT

ROWS, SPLITS = 60, 2


def make_set(folder):
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=(ROWS, 2)), np.ones(ROWS)])  # a column without spread
    y = 100 + 20 * x[:, 0] + 10 * x[:, 1] + rng.normal(size=ROWS)
    (folder / "data").mkdir(parents=True)
    (folder / "published").mkdir()
    np.savetxt(folder / "data" / "data.txt", np.column_stack([x, y]))
    facts = {"index_features": [0, 1, 2], "index_target": [3], "n_hidden": [8], "n_splits": [9]}
    for i in range(SPLITS):
        order = rng.permutation(ROWS)
        facts |= {f"index_train_{i}": order[:50], f"index_test_{i}": order[50:]}
    for name, values in facts.items():
        np.savetxt(folder / "data" / f"{name}.txt", values, fmt="%d")
    for metric, values in {"MC_rmse": [1000.0, 1000.0], "ll": [-1.0, -1.5]}.items():
        path = folder / "published" / f"test_{metric}_100_xepochs_1_hidden_layers.txt"
        np.savetxt(path, values)


@pytest.mark.slow
def test_it_stands_beside_the_published_results(tmp_path):
    make_set(tmp_path / "made")
    script = ROOT / "tests" / "benchmarks" / "uci.py"
    sizes = ("--splits", 2, "--epochs", 60, "--passes", 50, "--rates", 0.05)
    command = [sys.executable, script, "--data", tmp_path, "--sets", "made", *sizes]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["passes"] == 50 and answer["holds"] is False
    for network in ("plain", "residual"):
        rmse, ll = (answer["sets"]["made"][network][metric] for metric in ("rmse", "ll"))
        assert rmse["published"] == 1000 and ll["published"] == -1.25
        assert 0.5 < rmse["ours"] < 20  # noise 1, spread of the target 22
        assert -5 < ll["ours"] < -1.5
        assert rmse["holds"] is True and ll["holds"] is False
        for result in (rmse, ll):
            assert result["difference"] == pytest.approx(result["ours"] - result["published"])
            assert result["standard_error"] > 0
