"""Run folders that were damaged or altered: the same answers or one sentence, never a traceback."""

import io
import json
import random
import shutil
import sys
import zipfile

import numpy as np
import pytest
from damage import altered, is_one_sentence, outcome, turned, without_hashes
from data_sets import make_store

from kerasmlp import EmbeddingStore, InputError
from kerasmlp.cli import run_command
from kerasmlp.data.norms import norm_1_share
from kerasmlp.runs.run_folder import RunFolder

JSON_FILES = ("config.json", "report.json", "calibration.json")
FILES = (*JSON_FILES, "model.keras", "seen.npy", "DONE")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture(scope="module")
def store(folder):
    make_store(rows=120, width=16).save(folder / "store.h5")
    return folder / "store.h5"


@pytest.fixture(scope="module")
def run(folder, store):
    how = ["--epochs", "2", "--batch-size", "32", "--num-blocks", "0"]
    assert outcome("train-gender", "--store", store, "--run-dir", folder / "run", *how)[0] == 0
    return folder / "run"


@pytest.fixture
def broken(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def predict(run, store):
    return outcome("predict", run, store, "--num-samples", "0")


def evaluate(run, store):
    shutil.rmtree(run / "evaluation-store", ignore_errors=True)
    return outcome("evaluate", run, store, "--num-samples", "0")


def refused(run, store):
    code, out, err = predict(run, store)
    assert code == 2 and out == "" and is_one_sentence(err), (code, err)
    return err


def test_a_run_names_the_hashes_of_its_files(run):
    import hashlib

    lines = dict(reversed(line.split("  ")) for line in (run / "DONE").read_text().splitlines())
    assert set(lines) == {p.name for p in run.iterdir() if p.is_file()} - {"DONE", ".lock"}
    for name, digest in lines.items():
        assert hashlib.sha256((run / name).read_bytes()).hexdigest() == digest


def test_runs_without_hashes_open(run, store, broken):
    without_hashes(broken)
    assert predict(broken, store) == predict(run, store)


@pytest.mark.parametrize("lines", [0, 1, 2, -1])
def test_hashes_that_were_cut_off_are_seen(lines, store, broken):
    whole = (broken / "DONE").read_text().splitlines(keepends=True)
    (broken / "DONE").write_text("".join(whole[:lines]))
    code, _, err = evaluate(broken, store)
    assert code == 2 and is_one_sentence(err)
    assert ("an empty file" if lines == 0 else "one of the files that DONE names") in err


def test_a_file_of_another_run_is_not_taken(run, store, broken):
    text = (broken / "DONE").read_text().splitlines(keepends=True)
    (broken / "DONE").write_text("".join(s for s in text if "calibration.json" not in s))
    assert "calibration.json` must be one of the files that DONE names" in refused(broken, store)
    (broken / "calibration.json").unlink()  # trained with calibrate=false
    whole, without = (
        [json.loads(a)["gender"] for a in predict(path, store)[1].splitlines()]
        for path in (run, broken)
    )
    assert all(answer.pop("set_90") for answer in whole)
    assert without == whole


def test_what_is_loaded_is_what_was_looked_at(run, monkeypatch):
    """Another model that takes the place of the one that was hashed is not the one loaded."""
    from kerasmlp import load_model
    from kerasmlp.utils import keras_file

    expected, check = load_model(run).get_weights(), keras_file.check_keras_file
    content = (run / "model.keras").read_bytes()

    def check_and_replace(*args, **how):
        result = check(*args, **how)
        (run / "model.keras").write_bytes(b"another")
        return result

    monkeypatch.setattr(keras_file, "check_keras_file", check_and_replace)
    try:
        found = load_model(run).get_weights()
    finally:
        (run / "model.keras").write_bytes(content)
    assert all((a == b).all() for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("name", FILES)
def test_one_turned_bit_is_seen(name, broken, store):
    content = bytearray((broken / name).read_bytes())
    content[len(content) // 2] ^= 4
    (broken / name).write_bytes(content)
    reader = {"report.json": "export-model", "seen.npy": "evaluate"}.get(name, "predict")
    extra = [store] if reader != "export-model" else [broken.parent / "gender"]
    code, _, err = outcome(reader, broken, *extra)
    assert code == 2 and is_one_sentence(err) and name in err


def test_altered_files_are_one_sentence(run, store, broken):
    """One change at a time, half of them with hashes that hold and half without any."""
    rng = random.Random(0)
    expected, codes = predict(run, store), {0: 0, 2: 0}
    for number in range(30):
        name = rng.choice(JSON_FILES)
        hashed = number % 2
        if not hashed:
            without_hashes(broken)
        changed, what = altered((broken / name).read_text(encoding="utf-8"), rng)
        (broken / name).write_text(changed, encoding="utf-8")
        code, out, err = predict(broken, store)
        assert code in codes, f"{name}: {what}: {err}"
        assert is_one_sentence(err) if code else (not hashed or (code, out, err) == expected)
        assert "NaN" not in out and "Infinity" not in out
        codes[code] += 1
        for name in (*JSON_FILES, "DONE"):
            shutil.copy(run / name, broken / name)
    assert min(codes.values()) >= 3


def test_damaged_bytes_are_one_sentence(run, store, broken):
    rng = random.Random(1)
    expected = predict(run, store)
    for _ in range(20):
        name = rng.choice(FILES)
        changed, what = turned((run / name).read_bytes(), rng)
        (broken / name).write_bytes(changed)
        code, out, err = predict(broken, store)
        same = (code, out, err) == expected
        assert same or (code == 2 and is_one_sentence(err)), f"{name}: {what}: {err}"
        assert same or name != "report.json"  # which predict does not read
        shutil.copy(run / name, broken / name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_answer_nothing(bad, run, store, broken):
    from kerasmlp import load_model
    from kerasmlp.runs.predictor import Predictor

    model = load_model(run)
    kernel, bias = model.get_layer("logits").get_weights()
    kernel[0, 0] = bad
    model.get_layer("logits").set_weights([kernel, bias])
    without_hashes(broken)
    model.save(broken / "model.keras")
    assert "finite" in refused(broken, store)
    assert evaluate(broken, store)[0] == 2
    assert outcome("export-model", broken, broken.parent / "gender")[0] == 2
    with pytest.raises(InputError, match="finite"):
        Predictor(broken)


@pytest.mark.parametrize("temperature", [1e-308, 0, -1, 1e308, "NaN", None, True, "1"])
def test_a_temperature_out_of_range(temperature, store, broken):
    path = broken / "calibration.json"
    config = json.loads(path.read_text()) | {"mc_temperature": temperature}
    path.write_text(json.dumps(config).replace('"NaN"', "NaN"))
    without_hashes(broken)
    assert "calibration.json` must be" in refused(broken, store)


def archive(path, **parts):
    """A `.keras` file with other parts than it had."""
    with zipfile.ZipFile(path) as old:
        kept = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in (kept | {k.replace("__", "."): v for k, v in parts.items()}).items():
            new.writestr(name, content)


def config_of(path):
    with zipfile.ZipFile(path) as file:
        return json.loads(file.read("config.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": 10**9}, "a network of "),
        ({"units": 10**15}, "must be a saved model"),
        ({"units": -1}, "must be a saved model"),
        ({"units": "x"}, "must be a saved model"),
        ({"activation": {"class_name": "function", "module": "os", "config": "system"}}, "os"),
        (
            {"activation": {"class_name": "f", "module": "os", "registered_name": "kerasmlp>f"}},
            "os",
        ),
        ({"activation": {"class_name": "eval", "module": "builtins"}}, "builtins.eval"),
        ({"activation": {"class_name": "function", "module": "keras.utils"}}, "keras.utils.f"),
        ({"activation": {"class_name": "Lambda", "module": "keras.layers"}}, "a layer Lambda"),
        ({"activation": {"class_name": "LSTM", "module": "keras.layers"}}, "keras.layers.LSTM"),
    ],
)
def test_layers_that_the_weights_do_not_hold(change, message, store, broken):
    config = config_of(broken / "model.keras")
    head = next(v for v in config["config"]["layers"] if v["class_name"] == "Dense")
    head["config"] |= change
    archive(broken / "model.keras", config__json=json.dumps(config))
    without_hashes(broken)
    assert message in refused(broken, store)


def test_archives_that_unpack_to_more_than_they_are(store, broken):
    without_hashes(broken)
    path = broken / "model.keras"
    whole = path.read_bytes()
    archive(path, config__json="[" * 100_000)
    assert "more than 64 levels" in refused(broken, store)
    archive(path, config__json='{"a": ' * 100 + "1" + "}" * 100)
    assert "more than 64 levels" in refused(broken, store)
    path.write_bytes(whole)
    archive(path, notes__txt="x")
    assert "must be a saved model, with config.json" in refused(broken, store)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            file.writestr(name, bytes(10_000_000))
    assert path.stat().st_size < 100_000
    assert "parts are not compressed" in refused(broken, store)
    path.unlink()
    path.symlink_to(path)
    assert "must be a saved model" in refused(broken, store)


def test_hdf5_that_declares_more_than_it_holds(tmp_path, store, broken):
    import h5py

    without_hashes(broken)
    whole = (broken / "model.keras").read_bytes()
    for make, message in (
        (lambda f: f.create_dataset("a", (1 << 40,), "f4"), "bytes at 'a'"),
        (lambda f: f.create_dataset("a", (1 << 20,), "f4", compression="gzip"), "lie elsewhere"),
        (lambda f: f.create_dataset("a", (4,), "f4", external=[("/dev/zero", 0, 16)]), "elsewhere"),
        (lambda f: f.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/")), "a link at 'a'"),
        (lambda f: f.__setitem__("a", h5py.SoftLink("/")), "a link at 'a'"),
        (lambda f: f.__setitem__("a", f["/"]), "saved model"),
    ):
        with h5py.File(tmp_path / "w.h5", "w") as file:
            make(file)
        (broken / "model.keras").write_bytes(whole)
        archive(broken / "model.keras", model__weights__h5=(tmp_path / "w.h5").read_bytes())
        assert message in refused(broken, store)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<u8', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<u8', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (120,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (120,), }",
        "{'descr': '<u8', 'fortran_order': False, 'shape': (-1,), }",
        "((((",
    ],
)
def test_hashes_of_rows_with_another_header(header, store, broken):
    content = (broken / "seen.npy").read_bytes()
    text = header.encode().ljust(117) + b"\n"
    (broken / "seen.npy").write_bytes(content[:10] + text + content[10 + len(text) :])
    without_hashes(broken)
    code, _, err = evaluate(broken, store)
    assert code == 2 and is_one_sentence(err) and "seen.npy` must hold one 64-bit number" in err


def test_files_that_are_no_files(store, broken):
    without_hashes(broken)
    for name in ("config.json", "calibration.json"):
        (broken / name).unlink()
        (broken / name).symlink_to(broken / name)
        if name == "config.json":
            assert "config.json` must be a JSON file" in refused(broken, store)
    assert "RunFolder(" in repr(RunFolder(broken)) and "finished" in repr(RunFolder(broken))


def test_lines_of_json_survive_an_encoding_that_lacks_their_letters(
    run, store, tmp_path, monkeypatch
):
    path = shutil.copy(store, tmp_path / "grüße \N{GRINNING FACE} λ.h5")
    for encoding in ("ascii", "latin-1", "utf-8"):
        screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", screen)
        assert run_command("predict", [str(run), str(path), "--num-samples", "0"]) == 0
        screen.flush()
        lines = screen.buffer.getvalue().decode(encoding).splitlines()
        assert [json.loads(line)["input"] for line in lines] == [str(path)] * 120


def test_too_little_memory_is_one_sentence(monkeypatch):
    import tensorflow as tf

    for need in (lambda _: bytearray(1 << 62), lambda _: tf.zeros((1 << 45,))):
        monkeypatch.setattr("kerasmlp.commands.compare.run", need)
        code, out, err = outcome("compare", "a", "b")
        assert (code, out, err) == (2, "", "error: this needs more memory than there is\n")


@pytest.mark.parametrize("option", ["--num-blocks", "--residuals-per-block", "--batch-size"])
def test_sizes_have_limits(option, store, tmp_path):
    how = ["--store", store, "--run-dir", tmp_path / "run"]
    for value in ("99999999999", "9" * 100, "9" * 5000):
        try:
            code, _, err = outcome("train-gender", *how, option, value)
        except SystemExit as error:  # argparse reads no number of 5,000 digits
            assert error.code == 2 and len(value) == 5000
            continue
        assert code == 2 and "must be at most" in err and not (tmp_path / "run").exists()


def test_rows_given_to_a_predictor(run, store):
    from kerasmlp.runs.predictor import Predictor

    predictor, x = Predictor(run), EmbeddingStore.open(store).embeddings
    assert repr(predictor).startswith(f"Predictor({str(run)!r}: 2 classes of gender, width 16")
    bare, said = list(predictor.rows(x[:2])), list(predictor.rows(x[:2], num_samples=64, seed=0))
    assert bare == said and len(bare) == 2
    assert list(predictor.rows(x[:0])) == []
    for bad, message in (
        (x * 20, "must hold embeddings of norm 1"),
        (x[:, :8], r"must have shape \(batch, 16\)"),
        (x[0], r"must have shape \(batch, 16\)"),
        (np.where(x == x.max(), np.nan, x), "must be finite"),
        (x.astype(str), "must hold numbers"),
        ([[1.0], [1.0, 2.0]], "must be an array"),
    ):
        for ask in (predictor.probabilities, predictor.rows, predictor.uncertainty):
            with pytest.raises(InputError, match=message):
                ask(bad)  # before the first answer is asked for
    with pytest.raises(InputError, match="must be at most 100000"):
        predictor.rows(x, num_samples=10**9)


def test_pictures_are_no_part_of_a_result(broken):
    with RunFolder(broken / "inner").working({"seed": 0}, resume=False, force=False):
        run = RunFolder(broken / "inner")
        for name in ("curves.png", "history.csv"):
            (run / name).write_text("as it was")
        run.finish({"accuracy": 0.5})
    (run / "curves.png").unlink()
    run.check_files()
    (run / "history.csv").unlink()
    with pytest.raises(InputError, match="history.csv` must be there, as DONE says"):
        run.check_files()


def test_rows_of_norm_1_where_the_model_has_learned_from_longer_ones(run, store):
    """What it was trained on is always taken, and single rows, which may be of norm 1 by chance."""
    from kerasmlp.runs.predictor import Predictor

    predictor, x = Predictor(run), EmbeddingStore.open(store).embeddings
    predictor.config |= {"normalized": False, "norm_1_share": 1 / 102}
    with pytest.raises(InputError, match="rows that are not normalised.* 120 rows of norm 1"):
        predictor.probabilities(x)
    assert len(predictor.probabilities(x[:1])) == 1
    assert len(predictor.probabilities(np.concatenate([x, x[:1] * 9]))) == 121
    predictor.config["norm_1_share"] = norm_1_share(x)  # the store said another thing than it held
    assert len(predictor.probabilities(x)) == 120
