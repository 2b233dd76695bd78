"""Runs, cross-validations, checkpoints and exports, damaged at random, and who reads them."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from damage import altered, called, outcome, without_hashes
from data_sets import make_store
from fuzz_damaged import Given, damage_file

RECIPE = {"num_blocks": 0, "epochs": 2, "batch_size": 32}
_FLAGS = ["--num-blocks", "0", "--epochs", "2", "--batch-size", "32"]
_CV_FLAGS = ["--label", "gender", "--seeds", "1", "--folds", "2", "--workers", "1", *_FLAGS]
_SUFFIXES = (".json", ".keras", ".npy", ".csv")


class InThisProcess:
    """Trains the runs of a cross-validation here."""

    number = 1

    def train(self, settings, pending, steps, **how):
        from kerasmlp.data.stores.embedding_store import EmbeddingStore
        from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, plan_runs
        from kerasmlp.experiments.cross_validation.trainer import train_planned

        plan = CrossValidationPlan.from_config(settings["plan"])
        store = EmbeddingStore.open(settings["store"])
        runs = plan_runs(store, plan)
        for number in pending:
            train_planned(store, plan, runs[number], settings["run_dir"])
            yield number


def make_models(samples):
    """Trains, exports and saves one of each kind; in a process of its own, it begins TensorFlow."""
    from kerasmlp.data.targets import choose_target
    from kerasmlp.experiments.cross_validation.cross_validate import cross_validate
    from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan
    from kerasmlp.models.presets import Recipe
    from kerasmlp.serving.export.saved_model import export_model
    from kerasmlp.training.embeddings import train

    data = make_store(rows=120, width=16)
    data.save(samples / "faces.h5")
    target = choose_target(data, "gender")
    train(data, target, Recipe(**RECIPE), samples / "run", pictures=False)
    plan = CrossValidationPlan(target=target, recipe=Recipe(**RECIPE), seeds=(0,), num_folds=2)
    cross_validate(samples / "faces.h5", plan, samples / "cv", pool=InThisProcess())
    export_model(samples / "run", samples / "gender")
    if find_spec("torch"):
        import torch
        from test_torch_import import make_network

        state = make_network().state_dict()
        torch.save(state, samples / "whole.pth")
        torch.save(state, samples / "old.pth", _use_new_zipfile_serialization=False)


# ---- runs and cross-validations


def run_commands(samples):
    store = samples / "faces.h5"
    return {
        "predict": lambda r, out: ("predict", r, store, "--num-samples", "0"),
        "evaluate": lambda r, out: ("evaluate", r, store, "--num-samples", "0", "--force"),
        "export-model": lambda r, out: ("export-model", r, out / "gender"),
        "train --init": lambda r, out: (
            "train-gender", "--store", store, "--run-dir", out / "new", "--init", r,
            "--epochs", "1", "--num-blocks", "0",
        ),
        "train --resume": lambda r, out: (
            "train-gender", "--store", store, "--run-dir", r, "--resume", *_FLAGS,
        ),
        "cross-validate --resume": lambda r, out: (
            "cross-validate", "--store", store, "--run-dir", r, "--resume", *_CV_FLAGS,
        ),
        "compare": lambda r, out: ("compare", r, samples / "cv"),
    }  # fmt: skip


def lay_run(samples, names, *, alters):
    """Damaged bytes under hashes, or none; or a value of the JSON that is another, well-formed."""
    whole_answer = {}

    def lay(folder, rng):
        name = rng.choice(names) if rng else "predict"
        is_cv = name in ("compare", "cross-validate --resume")
        broken = folder / "run"
        shutil.copytree(samples / ("cv" if is_cv else "run"), broken)
        what, hashed = "whole", True
        if rng:
            what, hashed = _spoil(broken, name, rng, alters)
        command = run_commands(samples)[name](broken, folder.parent / "out")

        def judge(out):
            if "NaN" in out or "Infinity" in out:
                return "NaN in the answer"
            if rng is None:
                whole_answer["predict"] = out
            elif name == "predict" and hashed and out != whole_answer["predict"]:
                return "other answers"
            return None

        return Given(f"{name}: {what}", lambda: outcome(*command), judge)

    return lay


def _spoil(broken, name, rng, alters):
    if name == "cross-validate --resume" and alters and rng.random() < 0.5:
        (broken / "DONE").unlink()  # so that the finished runs in it are looked at again
    files = [p for p in sorted(broken.rglob("*")) if p.suffix in _SUFFIXES or p.name == "DONE"]
    path = rng.choice([p for p in files if p.suffix == ".json"] if alters else files)
    hashed = rng.random() < (0.2 if alters else 0.7)
    if not hashed:
        for done in broken.rglob("DONE"):
            without_hashes(done.parent)
    if alters:
        text, what = altered(path.read_text(encoding="utf-8"), rng)
        path.write_text(text, encoding="utf-8")
    elif path.exists():
        what = damage_file(path, rng)
    return f"{path.relative_to(broken)}: {what}{'' if hashed else ', no hashes'}", hashed


# ---- models


def keras_files(samples):
    truth = []

    def lay(folder, rng):
        from kerasmlp.runs.model import load_model

        path, found = Path(shutil.copy(samples / "run" / "model.keras", folder)), []
        what = damage_file(path, rng) if rng else "whole"

        def judge(_):
            weights = found[-1].get_weights()
            if rng is None:
                truth[:] = weights
            same = all(np.array_equal(a, b) for a, b in zip(weights, truth, strict=True))
            return None if same else "other weights"

        return Given(what, lambda: called(lambda: found.append(load_model(path))), judge)

    return lay


def checkpoints(samples):
    truth = {}

    def lay(folder, rng):
        from kerasmlp.runs.model import load_model

        name = rng.choice(["whole.pth", "whole.pth", "old.pth"]) if rng else "whole.pth"
        path, run = Path(shutil.copy(samples / name, folder)), folder.parent / "out" / "run"
        what = damage_file(path, rng) if rng else "whole"

        def judge(_):
            weights = load_model(run).get_weights()
            if rng is None:
                truth["weights"] = weights
            elif name == "old.pth":  # which has no checksums
                return None
            same = all(np.array_equal(a, b) for a, b in zip(weights, truth["weights"], strict=True))
            return None if same else "other weights"

        return Given(f"{name}: {what}", lambda: outcome("import-torch", path, "-o", run), judge)

    return lay


def ask_served(version):
    """As `serve` and `serve-check` take a model, and its answers to a few rows."""
    from kerasmlp.serving.server.served_models import load_models

    rows = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    found = {}

    def load():
        (model,) = load_models([version.parent]).values()
        (loaded,) = model.versions.values()
        loaded.warm_up()
        found.update(loaded.run("serving_default", {"embedding": rows}))

    return lambda: called(load), found


def exports(samples):
    """The graph, which has no checksum, must not crash; what the weights answer is known."""
    truth = {}

    def lay(folder, rng):
        version = Path(shutil.copytree(samples / "gender", folder / "gender")) / "1"
        files = [p for p in sorted(version.rglob("*")) if p.is_file()]
        path = rng.choice([*files, *[version / "saved_model.pb"] * 3]) if rng else None
        what = damage_file(path, rng) if rng else "whole"
        ask, found = ask_served(version)

        def judge(_):
            if rng is None:
                truth.update(found)
            if path and path.suffix == ".pb":
                return None
            same = all(np.array_equal(found[name], truth[name]) for name in truth)
            return None if same else "other answers"

        return Given(what, ask, judge)

    return lay
