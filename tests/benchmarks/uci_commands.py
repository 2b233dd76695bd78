"""The UCI sets of `uci.py` by the commands alone: CSV, `import-embeddings`, `train`, `evaluate`.

    python tests/benchmarks/uci_commands.py --data DIR [--sets concrete …] [--splits 20]
        [--set NAME=VALUE …]

Of each published split the training part and the test part become CSV files, which are
imported; `train --label y` learns from the first, by the preset `number` and what `--set`
changes in it, and `evaluate` measures on the second, in 64 passes. One seed per split.
Printed are means over splits of RMSE and log-likelihood (of the normal distribution that
`evaluate` judges), deterministic and of the passes, beside those published by Gal and
Ghahramani (2016) on the same splits, with the paired difference ± its
standard error. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import keras
import numpy as np

from kerasmlp.cli import run_command

assert keras.backend.backend() == "tensorflow"  # `uci` wants another, for processes to come
from uci import DataSet, read_set

SETS = ("concrete", "energy", "wine-quality-red", "yacht")


def run(command: str, *words: object) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = run_command(command, [str(word) for word in words])
        except SystemExit as refused:  # by argparse
            code = refused.code
    if code:
        sys.exit(f"{command}: {said.getvalue()}")


def write_store(folder: Path, name: str, x: np.ndarray, y: np.ndarray) -> Path:
    columns = [f"e{i}" for i in range(x.shape[1])]
    table = np.column_stack([x, y])
    header = ",".join([*columns, "y"])
    np.savetxt(folder / f"{name}.csv", table, "%.17g", ",", header=header, comments="")
    run("import-embeddings", folder / f"{name}.csv", "-o", folder / f"{name}.h5")
    return folder / f"{name}.h5"


def measure_split(data: DataSet, number: int, flags: list[str]) -> list[float]:
    """RMSE and log-likelihood, deterministic and of the passes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = zip(("train", "test"), data.splits[number], strict=True)
        train, test = (write_store(folder, part, data.x[r], data.y[r]) for part, r in parts)
        task = ("--label", "y", "--task", "number", "--seed", number)
        run("train", "--store", train, *task, "--run-dir", folder / "run", *flags)
        run("evaluate", folder / "run", test, "--output", folder / "out", "--seed", number)
        report = json.loads((folder / "out" / "report.json").read_text())
    found = [report["deterministic"], report["mc_mean"]]
    return [value for part in found for value in (part["rmse"], -part["nll"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    flags = [f"--{item.replace('_', '-')}" for item in args.set]
    report = {}
    print("| set | passes | RMSE | published | difference | LL | published | difference |")
    print("|---" * 8 + "|")
    for name in args.sets:
        data = read_set(args.data / name, args.splits)
        found = np.array([measure_split(data, k, flags) for k in range(len(data.splits))])
        for part, columns in (("none", found[:, :2]), ("64", found[:, 2:])):
            cells, report[f"{name}, {part}"] = [], columns.mean(axis=0).tolist()
            for metric, ours in zip(("rmse", "ll"), columns.T, strict=True):
                away = ours - data.published[metric][: len(ours)]
                error = away.std(ddof=1) / len(ours) ** 0.5 if len(ours) > 1 else 0.0
                cells += [f"{ours.mean():.4f}", f"{data.published[metric].mean():.4f}"]
                cells += [f"{away.mean():+.4f} ± {error:.4f}"]
            print(f"| {name} | {part} | {' | '.join(cells)} |", flush=True)
    print(json.dumps({"set": args.set, "splits": args.splits, "mean rmse and ll": report}))


if __name__ == "__main__":
    main()
