"""SavedModels of others: what could do more than compute is refused before it is loaded."""

import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from damage import without_hashes
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.core.protobuf.saved_object_graph_pb2 import SavedVariable
from test_export import WIDTH, X, make_run
from test_export_heads import THREE

from kerasmlp import InputError
from kerasmlp.cli import run_command
from kerasmlp.data.targets import Target, age_target
from kerasmlp.runs.calibration import RunCalibration
from kerasmlp.serving.export.saved_model import export_model
from kerasmlp.serving.server.graph_check import COMPUTING, answering_part
from kerasmlp.serving.server.graph_fields import ATTRIBUTES
from kerasmlp.serving.server.served_version import ServedVersion

YEARS = age_target("age_years", "adience", by_years=True)
EXPORTS = {
    "years": (YEARS, {"dropout_rate": 0.3, "use_output_ic": True, "input_scale": 4.0}),
    "groups": (age_target("age_years", "adience", by_years=False), {"dtype": "mixed_float16"}),
    "several": (THREE, {"dropout_rate": 0.3, "standardize": True, "members": 2}),
    "linear": (Target("race", ("a", "b", "c")), {"num_blocks": 0, "use_ic": False}),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    made = {}
    for name, (target, network) in EXPORTS.items():
        folder = tmp_path_factory.mktemp(name)
        run = make_run(folder / "run", target, **network)
        if name == "years":  # with intervals and sets
            how = {"rows": 50, "num_samples": 8, "mc_temperature": 1.0, "abstention": None}
            offsets, thresholds = {"mc_mean": {"50": 0.0, "90": 1.0}}, {"mc_mean": 0.8}
            calibration = RunCalibration(**how, offsets_years=offsets, set_thresholds=thresholds)
            calibration.save(run / "calibration.json")
            without_hashes(run)
        made[name] = folder / "served" / "1"
        export_model(run, folder / "served")
    return made


@pytest.fixture
def copy(exports, tmp_path):
    return shutil.copytree(exports["groups"], tmp_path / "age" / "1")


def graph_of(path):
    return SavedModel.FromString((path / "saved_model.pb").read_bytes())


def test_every_export_is_taken_and_needs_every_operation_of_the_list(exports):
    ops, attributes = set(), set()
    for path in exports.values():
        content = answering_part(path, (path / "saved_model.pb").read_bytes())
        (graph,) = SavedModel.FromString(content).meta_graphs
        for function in graph.graph_def.library.function:
            ops |= {node.op for node in function.node_def}
            attributes |= {key for node in function.node_def for key in node.attr}
    assert ops == COMPUTING
    assert attributes == ATTRIBUTES["NodeDef"]


def test_answers_are_those_of_the_whole_model(exports):
    mc = {"num_samples": np.array([50] * 7, np.int32), "seed": np.arange(7, dtype=np.int64)}
    for path in exports.values():
        ours, theirs = ServedVersion(path), ServedVersion(path, trust=True)
        assert ours.signatures == theirs.signatures
        assert ours.signature_definitions == theirs.signature_definitions
        for signature in ours.signatures:
            inputs = {"embedding": X, **(mc if signature == "serve_mc" else {})}
            answer, expected = ours.run(signature, inputs), theirs.run(signature, inputs)
            assert answer.keys() == expected.keys()
            for name, values in answer.items():
                np.testing.assert_array_equal(values, expected[name], strict=True)


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
        (restoring, "the operation 'RestoreV2'"),
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


def other_name(x):
    return {"y": x}


def no_rows(embedding):
    return {"y": tf.reduce_sum(embedding)}


def failing(embedding):
    return {"y": tf.reshape(embedding, (3, 2 * WIDTH))}


@pytest.mark.parametrize(
    ("answer", "name", "said"),
    [
        (other_name, "x", "must have no inputs but embedding, num_samples, seed. Received: inputs"),
        (no_rows, "embedding", f"must answer a row of {WIDTH} zeros. Received: "),
        (failing, "embedding", f"must answer a row of {WIDTH} zeros. Received: "),
    ],
)
def test_a_trusted_model_of_another_form_is_refused(answer, name, said, tmp_path, capsys):
    module = Other(lambda _: "a")
    spec = tf.TensorSpec((None, WIDTH), tf.float32, name)
    module.serve = tf.function(answer, input_signature=[spec])
    save(module, tmp_path / "other" / "1")
    assert run_command("serve", [str(tmp_path / "other"), "--trust"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"other/1` {said}" in sentence and "serving_default" in sentence


def a_call(graph, place, name):
    """Lets a signature call another function."""
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if function.signature.name.startswith(place) and "f" in node.attr:
                node.attr["f"].func.name = name


def saver(graph):
    names = [f.signature.name for f in graph.graph_def.library.function]
    return next(name for name in names if "traced_save" in name)


def computing(saved):
    """The function that a signature begins with."""
    functions = saved.meta_graphs[0].graph_def.library.function
    return next(f for f in functions if "signature_wrapper" in f.signature.name)


def structure(saved):
    functions = saved.meta_graphs[0].object_graph_def.concrete_functions
    return functions[computing(saved).signature.name].output_signature


def constants(graph):
    """Each of them is no larger than it may be."""
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "Const":
                node.attr["value"].tensor.tensor_shape.ClearField("dim")
                node.attr["value"].tensor.tensor_shape.dim.add(size=1 << 23)


ALTERED = {
    "0 graphs": lambda saved: saved.ClearField("meta_graphs"),
    "2 graphs": lambda saved: saved.meta_graphs.add().CopyFrom(saved.meta_graphs[0]),
    "or one without objects": lambda saved: saved.meta_graphs[0].ClearField("object_graph_def"),
    "a call of 'ReadFile'": lambda saved: a_call(
        saved.meta_graphs[0], "__inference_signature_wrapper", "ReadFile"
    ),
    "the operation '": lambda saved: a_call(
        saved.meta_graphs[0], "__inference_signature_wrapper", saver(saved.meta_graphs[0])
    ),
    "constants of ": lambda saved: constants(saved.meta_graphs[0]),
    "the operation 'PyFunc'": lambda saved: computing(saved).node_def.add(op="PyFunc"),
    "a NodeDef.device": lambda saved: computing(saved).node_def.add(op="NoOp", device="/job:a"),
    "a AttrValue.placeholder": lambda saved: setattr(
        computing(saved).node_def[0].attr["value"], "placeholder", "a"
    ),
    "the attribute '_noinline'": lambda saved: setattr(
        computing(saved).node_def[0].attr["_noinline"], "b", True
    ),
    "the attribute 'executor_type'": lambda saved: setattr(
        computing(saved).node_def[0].attr["executor_type"], "s", b"A"
    ),
    "a NameAttrList.attr": lambda saved: computing(saved).node_def[0].attr["f"].func.attr[
        "a"].MergeFrom(AttrValue(b=True)),
    "a ListValue.func": lambda saved: computing(saved).node_def[0].attr["value"].list.func.add(),
    "TensorProto.dtype 21": lambda saved: computing(saved).node_def[0].attr["value"].MergeFrom(
        AttrValue(tensor={"dtype": 21})),
    "a TensorProto.variant_val": lambda saved: computing(saved).node_def[0].attr["value"].MergeFrom(
        AttrValue(tensor={"variant_val": [{"type_name": "a"}]})),
    "a StructuredValue.type_spec_value": lambda saved: structure(saved
    ).type_spec_value.SetInParent(),
    "a StructuredValue.numpy_value": lambda saved: structure(saved).numpy_value.SetInParent(),
    "a FunctionDef.resource_arg_unique_id": lambda saved: computing(saved
    ).resource_arg_unique_id.update({0: 1}),
    "SavedVariable.dtype 21": lambda saved: next(
        n for n in saved.meta_graphs[0].object_graph_def.nodes if n.HasField("variable")
    ).variable.MergeFrom(SavedVariable(dtype=21)),
    "a graph without signatures": lambda saved: saved.meta_graphs[0].object_graph_def.nodes[0
    ].ClearField("children"),
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
        answering_part(exports["groups"], saved.SerializeToString())


def test_half_a_graph_is_refused(exports):
    content = (exports["groups"] / "saved_model.pb").read_bytes()
    with pytest.raises(InputError, match="must be a complete SavedModel"):
        answering_part(exports["groups"], content[:-7])


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


def writer(name, path):
    """A function that gives back its rows, after it wrote a file."""

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
    def written(x):
        saving = tf.raw_ops.SaveV2(
            prefix=str(path), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant("x")]
        )
        with tf.control_dependencies([saving]):
            return tf.identity(x)

    function = written.get_concrete_function().function_def
    function.ret["y"] = function.ret.pop(function.signature.output_arg[0].name)
    function.signature.output_arg[0].name = "y"
    function.signature.name = name
    return function


def through(saved, node):
    """Lets the rows of every signature take a way through a node of a call."""
    for function in saved.meta_graphs[0].graph_def.library.function:
        if "signature_wrapper" in function.signature.name:
            (rows,) = (a.name for a in function.signature.input_arg if "embedding" in a.name)
            for other in function.node_def:
                changed = ["on_the_way:y:0" if name == rows else name for name in other.input]
                other.input[:] = [
                    n.replace(":y:", ":output:") if "f" in node else n for n in changed
                ]
            added = function.node_def.add(op=node["op"], name="on_the_way", input=[rows])
            if "f" in node:
                added.attr["f"].func.name = node["f"]
                added.attr["Tin"].list.type.append(1)
                added.attr["Tout"].list.type.append(1)


def as_an_operation(saved, path):
    saved.meta_graphs[0].graph_def.library.function.append(writer("Rsqrt", path))
    through(saved, {"op": "Rsqrt"})


def as_the_same_for_another_device(saved, path):
    """TensorFlow takes it instead of the harmless one, which is for a GPU."""
    library = saved.meta_graphs[0].graph_def.library
    harmless = writer("harmless_1", path)
    del harmless.node_def[:]
    harmless.ret["y"] = harmless.signature.input_arg[0].name
    harmless.ClearField("control_ret")
    harmless.signature.ClearField("control_output")
    for function, device in ((harmless, b"GPU"), (writer("other_1", path), b"CPU")):
        function.attr["api_implements"].s = b"same"
        function.attr["api_preferred_device"].s = device
        library.function.append(function)
    through(saved, {"op": "StatefulPartitionedCall", "f": "harmless_1"})


@pytest.mark.parametrize(
    ("hidden", "named"),
    [
        (as_an_operation, "the operation 'Rsqrt'"),
        (as_the_same_for_another_device, "the attribute 'api_"),
    ],
)
def test_a_writer_that_hides_is_refused(hidden, named, copy, tmp_path):
    saved = graph_of(copy)
    hidden(saved, tmp_path / "written")
    (copy / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(InputError, match=named):
        ServedVersion(copy).run("serving_default", {"embedding": X})
    assert not list(tmp_path.glob("written*"))
    ServedVersion(copy, trust=True).run("serving_default", {"embedding": X})
    assert list(tmp_path.glob("written*"))  # it would have been
