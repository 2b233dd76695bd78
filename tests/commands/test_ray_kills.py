"""A node of a Ray cluster that is killed, and then the command: nothing is lost."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from data_sets import ROOT, make_store

from kerasmlp.cli import run_command

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes():
    pytest.importorskip("ray.data", reason="needs Ray (the extra `ray`)")
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(ROOT)
    how = {"num_cpus": 0, "object_store_memory": 1 << 27, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=how)
    yield cluster
    cluster.shutdown()


def test_a_killed_node_and_a_killed_command_lose_nothing(nodes, tmp_path):
    store = make_store(12 * 16_384 - 5, 16)
    store.save(tmp_path / "rows.h5")
    store.subset(np.arange(1500)).save(tmp_path / "learned.h5")
    words = ["--store", tmp_path / "learned.h5", "--epochs", "1", "--run-dir", tmp_path / "run"]
    assert run_command("train-gender", [str(w) for w in words]) == 0
    words = [tmp_path / "run", tmp_path / "rows.h5", "--num-samples", "4", "-o"]
    assert run_command("predict", [str(w) for w in (*words, tmp_path / "here.jsonl")]) == 0

    first, _ = (nodes.add_node(num_cpus=1, object_store_memory=1 << 27) for _ in range(2))
    nodes.wait_for_nodes()
    words = [sys.executable, ROOT / "bin" / "predict", *words, tmp_path / "ray.jsonl"]
    words = [str(w) for w in (*words, "--engine", "ray")]
    environment = os.environ | {"RAY_ADDRESS": nodes.address}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)

    def wait_for(number):
        while len(list(tmp_path.glob("ray.jsonl.partial/parts-*/*.part"))) < number:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)

    wait_for(2)
    nodes.remove_node(first, allow_graceful=False)
    wait_for(5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "ray.jsonl").exists()
    resumed = subprocess.run(
        [*words, "--resume"], env=environment, capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0 and resumed.stdout.split() == [str(tmp_path / "ray.jsonl")]
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    assert not (tmp_path / "ray.jsonl.partial").exists()
