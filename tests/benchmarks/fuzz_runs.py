"""Damages and alters every file of a run and of a cross-validation, and asks all that read them.

    python tests/benchmarks/fuzz_runs.py 600 --seed 1

Exit code 0, or 2 with one sentence: anything else is printed, and so are other answers of
`predict` where the hashes were left.
"""

import argparse
import collections
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from damage import altered, is_one_sentence, outcome, turned, without_hashes
from data_sets import make_store

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import choose_target
from kerasmlp.experiments.cross_validation.cross_validate import cross_validate
from kerasmlp.experiments.cross_validation.plan import Plan
from kerasmlp.experiments.cross_validation.trainer import Trainer
from kerasmlp.models.presets import Recipe
from kerasmlp.training.embeddings import train

RECIPE = Recipe(num_blocks=0, epochs=2, batch_size=32)


class InThisProcess:
    """Trains the runs of a cross-validation here."""

    def train(self, settings, pending, steps):
        plan = Plan.from_config(settings["plan"])
        trainer = Trainer(EmbeddingStore.open(settings["store"]), plan, settings["run_dir"])
        for number in pending:
            trainer.train(number)
            yield number


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    args = parser.parse_args()
    rng, started = random.Random(args.seed), time.time()
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz(Path(folder), args.count, rng, started + args.seconds)
    for (kind, code), count in sorted(counts.items()):
        print(f"{kind:40} exit code {code}: {count}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{sum(counts.values())} in {time.time() - started:.0f} s, at most {peak:.2f} GB")


def fuzz(folder, count, rng, end):
    store, run, cv = folder / "store.h5", folder / "run", folder / "cv"
    data = make_store(rows=120, width=16)
    data.save(store)
    target = choose_target(data, "gender")
    train(data, target, RECIPE, run, pictures=False)
    plan = Plan(target=target, recipe=RECIPE, seeds=(0,), num_folds=2)
    cross_validate(store, plan, cv, pool=InThisProcess())
    options = ["--label", "gender", "--seeds", "1", "--folds", "2", "--num-blocks", "0"]
    options += ["--epochs", "2", "--batch-size", "32", "--workers", "1"]
    ask = {
        "predict": lambda r: ("predict", r, store, "--num-samples", "0"),
        "evaluate": lambda r: ("evaluate", r, store, "--num-samples", "0", "--force"),
        "export-model": lambda r: ("export-model", r, folder / "out" / "gender"),
        "train --init": lambda r: (
            "train-gender", "--store", store, "--run-dir", folder / "new", "--init", r,
            "--epochs", "1", "--num-blocks", "0",
        ),
        "train --resume": lambda r: (
            "train-gender", "--store", store, "--run-dir", r, "--resume", "--num-blocks", "0",
            "--epochs", "2", "--batch-size", "32",
        ),
    }  # fmt: skip
    ask_cv = {
        "cross-validate --resume": lambda r: (
            "cross-validate", "--store", store, "--run-dir", r, "--resume", *options,
        ),
        "compare": lambda r: ("compare", r, cv),
    }  # fmt: skip
    counts, answers = collections.Counter(), outcome(*ask["predict"](run))
    for _ in range(count):
        if time.time() > end:
            break
        is_cv = rng.random() < 0.35
        whole, broken = (cv if is_cv else run), folder / "broken"
        for left in (broken, folder / "out", folder / "new"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(whole, broken)
        (folder / "out").mkdir()
        weights = [("predict", 6), ("evaluate", 2), ("train --resume", 2)]
        weights += [("export-model", 1), ("train --init", 1)]
        names, shares = zip(*weights, strict=True)
        name = rng.choice(list(ask_cv)) if is_cv else rng.choices(names, shares)[0]
        unfinished = name == "cross-validate --resume" and rng.random() < 0.6
        if unfinished:  # so that the finished runs in it are looked at again
            (broken / "DONE").unlink()
        files = [p for p in broken.rglob("*") if p.suffix in (".json", ".keras", ".npy", ".csv")]
        files += list(broken.rglob("DONE"))
        path = rng.choice(files)
        alters = path.suffix == ".json" and rng.random() < 0.7
        hashed = not alters or rng.random() < 0.5
        if not hashed:
            for done in broken.rglob("DONE"):
                without_hashes(done.parent)
        if alters:
            text, what = altered(path.read_text(encoding="utf-8"), rng)
            path.write_text(text, encoding="utf-8")
        else:
            content, what = turned(path.read_bytes(), rng)
            path.write_bytes(content)
        command = (ask | ask_cv)[name](broken)
        code, out, err = outcome(*command)
        counts[f"{name}{'' if hashed else ', no hashes'}", code] += 1
        bad = code not in (0, 2) or (code == 2 and not is_one_sentence(err)) or "NaN" in out
        if name == "predict" and code == 0 and hashed:
            bad = (code, out, err) != answers
        if bad:
            print(f"{name}: {path.relative_to(broken)}: {what}: {code} {err[-600:]!r}", flush=True)
    return counts


if __name__ == "__main__":
    main()
