"""Damaged and crafted files of every kind, given to the commands that read them.

    python tests/benchmarks/fuzz.py [--seed 0] [--only KIND] [--count N] [--number N]

Each must end with exit code 0 and the right values, or with 2 and one sentence,
within 60 seconds and ten times its size plus 1 GiB of memory, without a file
opened in a folder beside it. Whatever else comes is printed, with `--only KIND
--number N` to repeat it. The last line is one JSON object of the counts.
"""

import argparse
import collections
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / room) for room in ("helpers", "runs", "serving")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import fuzz_crafted_models
import fuzz_crafted_runs
import fuzz_crafted_stores
import fuzz_crafted_tables
import fuzz_damaged
import fuzz_models
from damage import is_one_sentence
from fuzz_damaged import Kind
from guarded import guarded

from kerasmlp.utils.tensorflow_import import import_tensorflow

SECRET = b"canary-7f3a91"
MORE_BYTES = 1 << 30


class Task:
    """Lays, asks and judges the inputs of a kind, in a copy of this process."""

    def __init__(self, kind, name, root, seed):
        self.kind, self.name, self.seed = kind, name, seed
        self.inside, self.out = root / "work" / "in", root / "work" / "out"

    def warm_up(self):
        self._empty()
        given = (self.kind.warm or self.kind.lay)(self.inside, None)
        code, out, err = given.ask()
        wrong = given.judge(out) if code == 0 else err
        if wrong:
            raise AssertionError(f"{self.name}: a whole input: {code} {wrong}")

    def _empty(self):
        for folder in (self.inside, self.out):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def prepare(self, number):
        self._empty()
        rng = random.Random(f"{self.seed} {self.name} {number}")
        self.given = self.kind.lay(self.inside, rng)
        files = [p.lstat() for p in self.inside.rglob("*") if not p.is_dir()]
        self.bytes = sum(status.st_size for status in files)
        return self.given.what

    def ask(self):
        try:
            self.answer = self.given.ask()
        except SystemExit as error:  # of argparse
            self.answer = error.code, "", "error: usage"
        except BaseException as error:
            self.answer = 1, "", f"raised {type(error).__name__}: {error}"

    def judge(self):
        code, out, err = self.answer
        wrong = None
        if code == 0:
            try:
                wrong = "taken" if self.given.refused else self.given.judge(out)
            except Exception as error:
                wrong = f"judging: {type(error).__name__}: {error}"
        elif code != 2:
            wrong = f"exit code {code}"
        elif not is_one_sentence(err):
            wrong = "not one sentence"
        elif "needs more memory" in err and self.bytes < 1 << 33:  # else it says what is true
            wrong = "memory"
        written = [p for p in self.out.rglob("*") if p.is_file() and not p.is_symlink()]
        secret = SECRET in f"{out}{err}".encode(errors="replace")
        if secret or any(SECRET in p.read_bytes() for p in written):
            wrong = "the secret is in the output"
        said = err[-400:] if wrong else ""
        return {
            "code": code,
            "wrong": wrong,
            "what": self.given.what,
            "size": self.bytes,
            "err": said,
        }


def kinds(root):
    samples = root / "samples"
    samples.mkdir()
    child = os.fork()
    if not child:
        code = 1
        try:
            fuzz_models.make_models(samples)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        sys.exit("the models could not be made")
    runs = ["predict", "predict", "predict", "evaluate", "export-model", "train --init"]
    runs += ["train --resume"]
    cvs = ["cross-validate --resume", "compare"]
    lay_run = fuzz_models.lay_run
    secret = root / "outside" / "secret"
    damaged = {
        "tables": Kind(600, fuzz_damaged.imports(samples)),
        "stores": Kind(200, fuzz_damaged.stores(samples)),
        "image stores": Kind(150, fuzz_damaged.image_stores(samples)),
        "pictures": Kind(350, fuzz_damaged.pictures(samples)),
        "runs": Kind(250, lay_run(samples, runs, alters=False)),
        "cross-validations": Kind(100, lay_run(samples, cvs, alters=False)),
        "keras files": Kind(100, fuzz_models.keras_files(samples)),
        "checkpoints": Kind(100, fuzz_models.checkpoints(samples)),
        "exports": Kind(150, fuzz_models.exports(samples)),
    }
    models = fuzz_crafted_models
    crafted = {
        "tables": (140, fuzz_crafted_tables.tables(secret)),
        "stores": (50, fuzz_crafted_stores.altered_store(samples, secret)),
        "pictures": (60, fuzz_crafted_stores.wild_pictures(samples, secret)),
        "runs": (60, fuzz_crafted_runs.wild_runs(samples, secret)),
        "cross-validations": (20, lay_run(samples, cvs, alters=True)),
        "checkpoints": (40, models.wild_checkpoints(samples, secret)),
        "exports": (70, models.wild_exports(samples, secret)),
    }
    for name, (count, lay) in crafted.items():
        damaged[f"crafted {name}"] = Kind(count, lay, damaged[name].lay)
    damaged["altered runs"] = Kind(60, lay_run(samples, runs, alters=True))
    return damaged


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="KIND", help="names, or how they begin")
    parser.add_argument("--count", type=int, help="of each kind")
    parser.add_argument("--number", type=int, help="one input alone")
    args = parser.parse_args()
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        outside = root / "outside"
        outside.mkdir()
        (outside / "secret").write_bytes(SECRET * 100)
        os.environ["TMPDIR"] = str(root / "tmp")
        (root / "tmp").mkdir()
        import_tensorflow()
        found = fuzz(root, args)
    total = sum(sum(codes.values()) for codes in found["codes"].values())
    print(json.dumps({"inputs": total, "seconds": round(time.time() - start), **found}))
    return 1 if found["wrong"] else 0


def fuzz(root, args):
    codes, wrong = collections.defaultdict(collections.Counter), 0
    most = {"peak_share": 0.0, "peak_bytes": 0, "input_seconds": 0.0}
    for name, kind in kinds(root).items():
        if args.only and not name.startswith(tuple(args.only)):
            continue
        if name.endswith("checkpoints") and not find_spec("torch"):
            print(f"{name:20} none: they need torch")
            continue
        begun = time.time()
        numbers = [args.number] if args.number is not None else range(args.count or kind.count)
        task = Task(kind, name, root, args.seed)
        for number, seen in guarded(numbers, task, [root / "outside"], [root]):
            said = trouble(seen)
            codes[name][str(seen.get("code", "died"))] += 1
            if said:
                wrong += 1
                print(
                    f"{name} {number}: {seen.get('what')}: {said} {seen.get('err', '')!r}",
                    flush=True,
                )
            if "peak" in seen:
                share = seen["peak"] / (10 * seen["size"] + MORE_BYTES)
                most["peak_share"] = max(most["peak_share"], round(share, 3))
                most["peak_bytes"] = max(most["peak_bytes"], seen["peak"])
                most["input_seconds"] = max(most["input_seconds"], seen["seconds"])
        listed = ", ".join(f"{n} with {code}" for code, n in sorted(codes[name].items()))
        print(f"{name:20} {listed} ({time.time() - begun:.0f} s)", flush=True)
    return {"codes": codes, "wrong": wrong, **most}


def trouble(seen):
    if "died" in seen:
        return seen["died"]
    said = [seen["wrong"]] if seen["wrong"] else []
    if seen["peak"] > 10 * seen["size"] + MORE_BYTES:
        said.append(f"{seen['peak']:,} bytes of memory for {seen['size']:,}")
    return "; ".join(said + seen["touched"])


if __name__ == "__main__":
    sys.exit(main())
