"""`cross-validate` against the same runs in eager PyTorch with a DataLoader.

    python tests/benchmarks/cross_validation.py STORE [--seeds 5] [--folds 5] [--epochs 10]

The paper's age network and recipe on the years of a store, without early
stopping, both from process start to the last result: `bin/cross-validate` with
its run folders, reports and pictures, and `torch_mlp.py --cross-validate`, one
process with PyTorch's own number of threads. Seeds, folds and the rows kept
back for validation are the same, float32 on both sides.

A ratio above 1 is in our favour. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from kerasmlp.models.presets import PRESETS


def timed(command: list) -> float:
    started = time.perf_counter()
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    return time.perf_counter() - started


def summary(values: list[float]) -> dict[str, float | None]:
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "std": std}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", type=Path, help="embedding store with age_years, without folds")
    for name, default in (("seeds", 5), ("folds", 5), ("epochs", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        preset = Path(folder) / "paper-age.json"
        recipe = PRESETS["paper-age"].replace(epochs=args.epochs, patience=None)
        preset.write_text(json.dumps(recipe.to_config()))
        seconds = {
            "kerasmlp": timed([
                sys.executable, ROOT / "bin" / "cross-validate", "--store", args.store,
                "--preset", preset, "--classes", "years", "--seeds", args.seeds,
                "--folds", args.folds, "--run-dir", f"{folder}/ours",
            ]),
            "PyTorch": timed([
                sys.executable, HERE / "torch_mlp.py", "--cross-validate", args.store, args.seeds,
                args.folds, args.epochs, 128, folder,
            ]),
        }  # fmt: skip
        ours = json.loads((Path(folder) / "ours" / "report.json").read_text())
        lines = (Path(folder) / "runs.jsonl").read_text().splitlines()
        peer = [json.loads(line) for line in lines]
    if any(row["epochs"] != args.epochs for row in ours["runs"]):
        sys.exit("a run stopped early: the two sides did not do the same work")
    if len(peer) != len(ours["runs"]):
        sys.exit(f"PyTorch trained {len(peer)} runs, not {len(ours['runs'])}")
    result = {"ratio": seconds["PyTorch"] / seconds["kerasmlp"], "runs": len(peer)}
    result["seconds"] = seconds
    for name in ("accuracy", "nll"):
        result[name] = {
            "kerasmlp": summary([row[f"test_{name}"] for row in ours["runs"]]),
            "PyTorch": summary([row["test"][name] for row in peer]),
        }
    result["different_steps"] = ours["different_steps"]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
