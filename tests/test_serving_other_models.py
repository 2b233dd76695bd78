"""SavedModels of others: what could do more than compute is refused before it is loaded."""

import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from test_export import WIDTH, X, make_run

from kerasmlp import InputError
from kerasmlp.cli import run_command
from kerasmlp.serving.export import export_model
from kerasmlp.serving.graph_check import COMPUTING, SAVING, check_graph
from kerasmlp.serving.served_version import ServedVersion
from kerasmlp.targets import Target, age_target

YEARS = age_target("age_years", "adience", by_years=True)
EXPORTS = {
    "years": (YEARS, {"dropout_rate": 0.3, "use_output_ic": True, "input_scale": 4.0}),
    "groups": (age_target("age_years", "adience", by_years=False), {"dtype": "mixed_float16"}),
    "linear": (Target("race", ("a", "b", "c")), {"num_blocks": 0, "use_ic": False}),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    made = {}
    for name, (target, network) in EXPORTS.items():
        folder = tmp_path_factory.mktemp(name)
        run = make_run(folder / "run", target, **network)
        made[name] = folder / "served" / "1"
        export_model(run, folder / "served")
    return made


@pytest.fixture
def copy(exports, tmp_path):
    return shutil.copytree(exports["groups"], tmp_path / "age" / "1")


def graph_of(path):
    return SavedModel.FromString((path / "saved_model.pb").read_bytes())


def ops_of(path):
    (graph,) = graph_of(path).meta_graphs
    functions = graph.graph_def.library.function
    parts = [graph.graph_def.node, *(f.node_def for f in functions)]
    return {node.op for nodes in parts for node in nodes}


def test_every_export_is_taken_and_needs_every_operation_of_the_list(exports):
    seen = set()
    for path in exports.values():
        check_graph(path, (path / "saved_model.pb").read_bytes())
        seen |= ops_of(path)
    assert seen == COMPUTING | SAVING


class Other(tf.Module):
    """A model that answers with whatever `does` returns."""

    def __init__(self, does):
        super().__init__()
        self.weight = tf.Variable(1.0)
        self.does = does

    @tf.function(input_signature=[tf.TensorSpec((None, WIDTH), tf.float32, "embedding")])
    def serve(self, embedding):
        label = tf.fill(tf.shape(embedding)[:1], self.does(embedding))
        return {"label": label, "probabilities": embedding * self.weight}


def save(module, path):
    tf.saved_model.save(module, str(path), {"serving_default": module.serve})
    (path / "assets" / "model.json").write_text(f'{{"width": {WIDTH}, "max_samples": 0}}')


def reading_in_a_branch(embedding):
    return tf.cond(tf.reduce_sum(embedding) > 0, lambda: tf.io.read_file("secret"), lambda: "a")


def restoring(embedding):
    how = {"tensor_names": ["a"], "shape_and_slices": [""], "dtypes": [tf.string]}
    return tf.raw_ops.RestoreV2(prefix="secret", **how)[0]


def writing(embedding):
    with tf.control_dependencies([tf.io.write_file("written", "x")]):
        return tf.constant("a")


@pytest.mark.parametrize(
    ("does", "named"),
    [
        (lambda _: tf.io.read_file("secret"), "the operation 'ReadFile'"),
        (reading_in_a_branch, "the operation 'ReadFile'"),
        (writing, "the operation 'WriteFile'"),
        (lambda _: tf.py_function(lambda: "a", [], tf.string), "the operation 'EagerPyFunc'"),
        (lambda _: tf.numpy_function(lambda: "a", [], tf.string), "the operation 'PyFunc'"),
        (lambda _: tf.io.matching_files("*")[0], "the operation 'MatchingFiles'"),
        (restoring, "the operation 'RestoreV2' in what answers"),
    ],
)
def test_what_reads_writes_or_runs_is_refused(does, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("secret")
    save(Other(does), tmp_path / "1")
    with pytest.raises(InputError, match=re.escape("(--trust takes a model of others")) as error:
        ServedVersion("1")
    assert str(error.value).startswith("`1/saved_model.pb` must hold only what exports")
    assert str(error.value).endswith(f"Received: {named}")
    assert not (tmp_path / "written").exists()


def test_what_runs_while_it_is_loaded_is_refused(copy, tmp_path, capsys):
    """A table is filled from a file before the first request."""
    (tmp_path / "words").write_text("a 1\n")
    module = Other(lambda _: tf.constant("a"))
    words = tf.lookup.TextFileInitializer(
        str(tmp_path / "words"), tf.string, 0, tf.int64, 1, delimiter=" "
    )
    module.table = tf.lookup.StaticHashTable(words, -1)
    save(module, tmp_path / "evil" / "1")
    assert run_command("serve", [str(tmp_path / "evil")]) == 2
    assert "evil/1/saved_model.pb` must hold only what exports" in capsys.readouterr().err


def test_trust_takes_it_nevertheless(tmp_path):
    (tmp_path / "secret").write_text("secret")
    secret = str(tmp_path / "secret")
    save(Other(lambda _: tf.io.read_file(secret)), tmp_path / "1")
    version = ServedVersion(tmp_path / "1", trust=True)
    assert version.run("serving_default", {"embedding": X})["label"].tolist() == [b"secret"] * 7


def a_call(graph, place, name):
    """Lets a signature call another function."""
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if function.signature.name.startswith(place) and "f" in node.attr:
                node.attr["f"].func.name = name


def saver(graph):
    names = [f.signature.name for f in graph.graph_def.library.function]
    return next(name for name in names if "traced_save" in name)


def huge(graph):
    (node, *_) = [
        n for f in graph.graph_def.library.function for n in f.node_def if n.op == "Const"
    ]
    node.attr["value"].tensor.tensor_shape.dim.add(size=1 << 40)


ALTERED = {
    "0 graphs": lambda saved: saved.ClearField("meta_graphs"),
    "2 graphs": lambda saved: saved.meta_graphs.add().CopyFrom(saved.meta_graphs[0]),
    "or one without objects": lambda saved: saved.meta_graphs[0].ClearField("object_graph_def"),
    "a call of 'ReadFile'": lambda saved: a_call(
        saved.meta_graphs[0], "__inference_signature_wrapper", "ReadFile"
    ),
    "in what answers": lambda saved: a_call(
        saved.meta_graphs[0], "__inference_signature_wrapper", saver(saved.meta_graphs[0])
    ),
    "the asset '../../secret'": lambda saved: setattr(
        saved.meta_graphs[0].asset_file_def[0], "filename", "../../secret"
    ),
    "a constant of shape": lambda saved: huge(saved.meta_graphs[0]),
    "the operation 'PyFunc'": lambda saved: saved.meta_graphs[0].graph_def.node.add(op="PyFunc"),
    "functions of gradients": lambda saved: saved.meta_graphs[0].graph_def.library.gradient.add(),
    "two functions of one name": lambda saved: saved.meta_graphs[0].graph_def.library.function.add(
    ).CopyFrom(saved.meta_graphs[0].graph_def.library.function[0]),
    "of the kind 'resource'": lambda saved: saved.meta_graphs[0].object_graph_def.nodes.add(
    ).resource.SetInParent(),
    "of the class 'tf.linalg'": lambda saved: setattr(
        saved.meta_graphs[0].object_graph_def.nodes[0].user_object, "identifier", "tf.linalg"
    ),
    "functions of its own": lambda saved: setattr(
        saved.meta_graphs[0].object_graph_def.nodes[0], "registered_name", "a.B"
    ),
}  # fmt: skip


@pytest.mark.parametrize("came", ALTERED)
def test_altered_exports_are_refused(came, exports):
    saved = graph_of(exports["groups"])
    ALTERED[came](saved)
    with pytest.raises(InputError, match="Received: .*" + re.escape(came)):
        check_graph(exports["groups"], saved.SerializeToString())


def test_half_a_graph_is_refused(exports):
    content = (exports["groups"] / "saved_model.pb").read_bytes()
    with pytest.raises(InputError, match="must be a complete SavedModel"):
        check_graph(exports["groups"], content[:-7])


def test_files_that_lead_elsewhere_are_refused(copy, tmp_path):
    weights = copy / "variables" / "variables.data-00000-of-00001"
    moved = tmp_path / "elsewhere"

    def refused(message):
        with pytest.raises(InputError, match=re.escape(message)):
            ServedVersion(copy)

    weights.rename(moved)
    refused("/age/1` must be a complete SavedModel. Received: one without variables/variables.data")
    weights.symlink_to(moved)
    refused("00001` must be a file (--trust takes a model of others, which may read and write")
    weights.unlink()
    os.mkfifo(weights)
    refused("of-00001` must be a file. Received: something else")
    weights.unlink()
    weights.write_bytes(moved.read_bytes()[:100])
    refused("/age/1` must be a complete SavedModel. Received: weights that are larger than their")
    weights.write_bytes(moved.read_bytes())
    assert ServedVersion(copy).signatures
    (copy / "variables").rename(tmp_path / "variables")
    (copy / "variables").symlink_to(tmp_path / "variables")
    refused("index` must be a file (--trust takes a model of others, which may read and write this")
    with open(copy / "saved_model.pb", "ab") as file:
        file.truncate(1 << 40)
    refused("saved_model.pb` must have at most 67108864 bytes. Received: 1099511627776")


def test_only_what_was_checked_is_loaded(copy, exports):
    """Neither another form of the graph nor debug information beside it."""
    (copy / "saved_model.pbtxt").write_text("nonsense")
    (copy / "saved_model.cpb").write_text("nonsense")
    (copy / "debug").mkdir()
    (copy / "debug" / "saved_model_debug_info.pb").write_text("nonsense")
    expected = ServedVersion(exports["groups"]).run("serving_default", {"embedding": X})
    answer = ServedVersion(copy).run("serving_default", {"embedding": X})
    np.testing.assert_array_equal(answer["probabilities"], expected["probabilities"])
