"""Checkpoints of the original become runs: the same outputs, and nothing in them is executed."""

import itertools
import json
import pathlib
import sys
import types

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import InputError
from kerasmlp.cli import run_command
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.torch_checkpoint import read_checkpoint

torch = pytest.importorskip("torch", reason="needs torch (extra `torch`)")
nn = torch.nn

WIDTH = 16
X = np.random.default_rng(0).normal(size=(5, WIDTH)).astype("float32")
ARGUMENTS = {
    "dropout": 0.1,
    "num_residuals_per_block": 1,
    "num_blocks": 2,
    "num_classes": 8,
    "num_initial_features": WIDTH,
    "add_residual": True,
    "add_IC": True,
}


class Unit(nn.Module):
    """A residual or a downsample block; its layers have the original's names."""

    def __init__(self, sizes, suffixes, *, ic, skip):
        super().__init__()
        self.suffixes, self.skip = suffixes, skip
        for (inputs, outputs), suffix, has_ic in zip(sizes, suffixes, ic, strict=True):
            if has_ic:
                setattr(self, f"norm_layer{suffix}", nn.BatchNorm1d(inputs))
            setattr(self, f"linear{suffix}", nn.Linear(inputs, outputs))

    def forward(self, x):
        y = x
        for i, suffix in enumerate(self.suffixes):
            y = getattr(self, f"norm_layer{suffix}", nn.Identity())(torch.relu(y) if i else y)
            y = getattr(self, f"linear{suffix}")(y)
        return torch.relu(y + x if self.skip else y)


class Network(nn.Module):
    def __init__(
        self, *, dropout, num_residuals_per_block, num_blocks, num_classes,
        num_initial_features, add_residual, add_IC,
    ):  # fmt: skip
        super().__init__()
        units, n = [], num_initial_features
        for i in range(num_blocks):
            for j in range(num_residuals_per_block):
                ic = (add_IC and (i, j) != (0, 0), add_IC)
                units.append(Unit([(n, n), (n, n)], "12", ic=ic, skip=add_residual))
            units.append(Unit([(n, n // 2)], [""], ic=(add_IC,), skip=False))
            n //= 2
        self.blocks = nn.Sequential(*units, nn.Linear(n, num_classes))

    def forward(self, x):
        return self.blocks(x)


def make_network(**arguments):
    torch.manual_seed(0)
    network = Network(**(ARGUMENTS | arguments))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def outputs_of(network, x):
    with torch.no_grad():
        return network(torch.as_tensor(x)).softmax(dim=1).numpy()


def convert(*arguments, expect=0):
    assert run_command("import-torch", [str(a) for a in arguments]) == expect


@pytest.mark.parametrize(
    ("num_residuals_per_block", "add_IC", "add_residual"),
    itertools.product((0, 1, 2), (True, False), (True, False)),
)
def test_every_variant_has_equal_outputs(
    tmp_path, num_residuals_per_block, add_IC, add_residual
):  # fmt: skip
    arguments = ARGUMENTS | {
        "num_residuals_per_block": num_residuals_per_block,
        "add_IC": add_IC,
        "add_residual": add_residual,
    }
    network = make_network(**arguments)
    saved = {"arch": {"type": "ResMLP", "args": arguments}, "state_dict": network.state_dict()}
    torch.save(saved, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", "-o", tmp_path / "run")
    predictor = Predictor(tmp_path / "run")
    outputs = predictor.probabilities(X)
    np.testing.assert_allclose(outputs, outputs_of(network, X), atol=1e-5)
    layers = predictor.model.layers
    rates = {v for layer in layers if (v := getattr(layer, "dropout_rate", None)) is not None}
    assert rates == {0.1}


@pytest.mark.parametrize(
    ("num_blocks", "num_classes", "parameters"), [(4, 2, 877_602), (2, 101, 837_733), (0, 2, 1026)]
)
def test_the_papers_networks_from_a_bare_state_dict(
    tmp_path, capsys, num_blocks, num_classes, parameters
):
    network = make_network(
        num_blocks=num_blocks, num_classes=num_classes, num_initial_features=512
    )  # fmt: skip
    torch.save(network.state_dict(), tmp_path / "age.pth")
    convert(tmp_path / "age.pth", "-o", tmp_path / "run")
    assert f"{parameters:,}" in capsys.readouterr().out
    assert RunFolder(tmp_path / "run").report()["trainable_parameters"] == parameters
    x = np.random.default_rng(1).normal(size=(9, 512)).astype("float32") / 512**0.5
    outputs = Predictor(tmp_path / "run").probabilities(x)
    np.testing.assert_allclose(outputs, outputs_of(network, x), atol=1e-5)


def test_a_file_of_an_old_torch(tmp_path):
    network = make_network(add_residual=True)
    torch.save(network.state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    convert(tmp_path / "a.pth", "-o", tmp_path / "run")
    outputs = Predictor(tmp_path / "run").probabilities(X)
    np.testing.assert_allclose(outputs, outputs_of(network, X), atol=1e-5)


def trainers_file(path, network, arguments):
    """As the original's trainer saves: the configuration is an object of a class of its own."""
    module = types.ModuleType("parse_config")

    class ConfigParser:
        def __init__(self):
            self._config = {"arch": {"type": "ResMLP", "args": arguments}}
            self._save_dir = pathlib.PurePosixPath("saved")

    ConfigParser.__module__, ConfigParser.__qualname__ = "parse_config", "ConfigParser"
    module.ConfigParser = ConfigParser
    sys.modules["parse_config"] = module
    try:
        state = {
            "arch": "ResMLP",
            "epoch": 3,
            "state_dict": network.state_dict(),
            # Written by hand: to make an optimiser imports what collides with TensorFlow's LLVM.
            "optimizer": {
                "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(16, 16)}},
                "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}],
            },
            "monitor_best": np.float64(0.5),
            "config": ConfigParser(),
        }
        torch.save(state, path)
    finally:
        del sys.modules["parse_config"]


def test_all_commands_take_the_run(tmp_path, capsys):
    network = make_network(add_residual=False)
    trainers_file(tmp_path / "age.pth", network, ARGUMENTS | {"add_residual": False})
    run = tmp_path / "run"
    convert(tmp_path / "age.pth", "-o", run, "--embedder", "made.onnx")
    out = capsys.readouterr().out
    assert "skips        no\n" in out and "assumed" not in out
    assert "predicts     age_years, 8 classes" in out
    store = make_store(rows=40, width=WIDTH)
    store.save(tmp_path / "store.h5")
    probabilities = Predictor(run).probabilities(store.embeddings)
    expected = outputs_of(network, store.embeddings)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert run_command("predict", [str(run), str(tmp_path / "store.h5"), "--seed", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 40
    assert run_command("evaluate", [str(run), str(tmp_path / "store.h5")]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert run_command("export-model", [str(run), str(tmp_path / "served")]) == 0
    train = ["--store", str(tmp_path / "store.h5"), "--classes", "adience", "--epochs", "1"]
    train += ["--preset", "paper-age", "--init", str(run), "--run-dir", str(tmp_path / "more")]
    assert run_command("train-age", train) == 0
    copied = RunFolder(tmp_path / "more").report()["weights_from_init"]
    assert copied["new"] == [] and "logits" in copied["copied"]


def test_nothing_in_a_checkpoint_is_executed(tmp_path, capsys):
    class Hostile:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'proof')!r}, 'w')",)

    torch.save({"state_dict": make_network().state_dict(), "x": Hostile()}, tmp_path / "a.pth")
    assert run_command("import-torch", [str(tmp_path / "a.pth"), "-o", str(tmp_path / "run")]) in (
        0, 2,
    )  # fmt: skip
    assert not (tmp_path / "proof").exists()


def test_the_configuration_beside_a_checkpoint(tmp_path, capsys):
    network = make_network(add_residual=False)
    torch.save(network.state_dict(), tmp_path / "age.pth")
    (tmp_path / "age.json").write_text(
        json.dumps({"arch": {"args": ARGUMENTS | {"add_residual": False}}})
    )
    convert(tmp_path / "age.pth", "-o", tmp_path / "run", "--config", tmp_path / "age.json")
    outputs = Predictor(tmp_path / "run").probabilities(X)
    np.testing.assert_allclose(outputs, outputs_of(network, X), atol=1e-5)
    convert(tmp_path / "age.pth", "-o", tmp_path / "run", expect=2)
    assert "must be empty (or give --resume or --force)" in capsys.readouterr().err
    convert(tmp_path / "age.pth", "-o", tmp_path / "run", "--force")
    assert "skips        yes (assumed: the checkpoint does not say)" in capsys.readouterr().out


def state(**changes):
    """The state of a small network, with some tensors changed, or left out where None."""
    tensors = dict(make_network().state_dict()) | changes
    return {k: v for k, v in tensors.items() if v is not None}


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (lambda: make_network(num_classes=5).state_dict(), "must have 2 classes .* Received: 5"),
        (lambda: nn.Conv1d(3, 3, 3).state_dict(), "must hold Linear and BatchNorm1d layers alone"),
        (
            lambda: state(**{"blocks.0.linear1.bias": None}),
            r"alone. Received: 'blocks.0.linear1' with weight \(16, 16\)",
        ),
        (
            lambda: state(**{"blocks.0.linear2.weight": torch.zeros(16, 9)}),
            r"from 16 to 16 or 8 as 'blocks.0.linear2'. Received: Linear\(9, 16\)",
        ),
        (
            lambda: state(**{"blocks.0.linear2.weight": torch.full((16, 16), float("nan"))}),
            "must hold finite weights. Received: NaN or infinity in 'blocks.0.linear2'",
        ),
        (
            lambda: {k: v for k, v in state().items() if "0.norm_layer2" not in k},
            r"must hold BatchNorm1d\(16\) as layer 2. Received: Linear\(16, 16\) 'blocks.0.linear2",
        ),
        (
            lambda: {k: v for k, v in state().items() if "0.linear2" not in k},
            "must hold the same even number of square Linear layers before each halving",
        ),
        (
            lambda: state(**{"blocks.0.linear1.bias": torch.tensor(0.5)}),
            r"with weight \(16, 16\), bias \(\)",
        ),
        (
            lambda: state(**{"blocks.0.linear1.bias": torch.zeros(16, 1)}),
            r"with weight \(16, 16\), bias \(16, 1\)",
        ),
        (
            lambda: state(**{"blocks.0.linear1.weight": torch.zeros(1).expand(10**6, 10**6)}),
            "must hold dense tensors of floating point. Received: 'blocks.0.linear1.weight': ",
        ),
        (
            lambda: state(**{"blocks.0.linear1.weight": torch.eye(16).to_sparse()}),
            "must hold dense tensors of floating point. .* torch.sparse_coo",
        ),
        (
            lambda: state(**{"blocks.0.linear1.weight": torch.eye(16, dtype=torch.complex64)}),
            "must hold dense tensors of floating point. .* torch.complex64",
        ),
        (lambda: {"state_dict": {"a": 3}}, "must hold a state_dict of tensors. Received: 'a'"),
        (lambda: [1, 2], "must hold a state_dict. Received: list"),
        (lambda: make_network(), "must be a PyTorch checkpoint|must hold a state_dict"),
        (
            lambda: {"state_dict": state(), "arch": {"args": ARGUMENTS | {"num_blocks": 3}}},
            "must have arguments that say num_blocks=2. Received: num_blocks=3 in its",
        ),
        (
            lambda: {"state_dict": state(), "arch": {"args": ARGUMENTS | {"dropout": 2}}},
            r"`dropout` must be in \[0, 1\). Received: dropout=2",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, saved, message):
    import re

    torch.save(saved(), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", "-o", tmp_path / "run", expect=2)
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x80\x02}q\x00."])
def test_files_that_are_no_checkpoints(tmp_path, capsys, content):
    (tmp_path / "a.pth").write_bytes(content)
    convert(tmp_path / "a.pth", "-o", tmp_path / "run", expect=2)
    assert "a.pth` must " in capsys.readouterr().err
    convert(tmp_path / "none.pth", "-o", tmp_path / "run", expect=2)
    assert "must be a PyTorch checkpoint. Received: no such file" in capsys.readouterr().err
    torch.save(make_network().state_dict(), tmp_path / "b.pth")
    (tmp_path / "b.json").write_text("[]")
    convert(tmp_path / "b.pth", "-o", tmp_path / "run", "--config", tmp_path / "b.json", expect=2)
    assert "must hold {" in capsys.readouterr().err


def test_a_turned_bit_is_not_another_weight(tmp_path):
    torch.save(make_network().state_dict(), tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth")[0]
    content = bytearray((tmp_path / "a.pth").read_bytes())
    weight = make_network().state_dict()["blocks.0.linear1.weight"].numpy().tobytes()
    content[content.index(weight) + 2] ^= 4
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match="must be a PyTorch checkpoint. Received: a damaged"):
        read_checkpoint(tmp_path / "a.pth")


def test_lists_of_lists_are_no_arguments(tmp_path, capsys):
    """Sixty lists, each twice in the next, are shown as a text without end."""
    value = ["x"]
    for _ in range(60):
        value = [value, value]
    saved = {"state_dict": make_network().state_dict(), "arch": {"args": {"num_blocks": value}}}
    torch.save(saved, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", "-o", tmp_path / "run", expect=2)
    assert "must have arguments that say num_blocks=2" in capsys.readouterr().err


def test_without_torch(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pth").write_bytes(b"x")
    convert(tmp_path / "a.pth", "-o", tmp_path / "run", expect=2)
    assert "`torch` must be installed to read a checkpoint" in capsys.readouterr().err
