"""Checkpoints and exports made to run code, take memory or reach elsewhere."""

import os
import shutil
from pathlib import Path

import numpy as np
from damage import outcome
from fuzz_crafted_runs import repack
from fuzz_crafted_tables import Hostile
from fuzz_damaged import Given
from fuzz_models import ask_served

# ---- checkpoints


def wild_checkpoints(samples, secret):
    def lay(folder, rng):
        import torch

        path, run = folder / "a.pth", folder.parent / "out" / "run"
        state = torch.load(samples / "whole.pth", weights_only=True)
        what = rng.choice(
            [
                "code",
                "code",
                "expand",
                "sparse",
                "nested",
                "laughs",
                "names",
                "numbers",
                "legacy",
                "sizes",
            ]
        )
        key, refused = rng.choice(sorted(k for k in state if "num_batches" not in k)), True
        if what == "code":
            saved = rng.choice(
                [
                    Hostile(secret),
                    {"state_dict": state, "x": Hostile(secret)},
                    state | {key: Hostile(secret)},
                ]
            )
            refused = not (isinstance(saved, dict) and "x" in saved)
            torch.save(saved, path)
        elif what == "expand":
            big = torch.zeros(1).expand(10 ** rng.randint(4, 9), 10 ** rng.randint(4, 9))
            torch.save(state | {key: big}, path)
        elif what == "sparse":
            indices = torch.tensor([[0], [0]])
            torch.save(state | {key: torch.sparse_coo_tensor(indices, [1.0], (10**9, 10**9))}, path)
        elif what == "nested":
            value = []
            for _ in range(rng.randint(100, 300)):
                value = [value]
            torch.save({"state_dict": state, "arch": {"args": {"dropout": value}}}, path)
        elif what == "laughs":
            value = ["x" * 9]
            for _ in range(rng.randint(20, 60)):
                value = [value, value]
            place = rng.choice(["state", "args"])
            saved = (
                state | {key: value}
                if place == "state"
                else {
                    "state_dict": state,
                    "arch": {"args": {"num_blocks": value, "dropout": value}},
                }
            )
            torch.save(saved, path)
        elif what == "names":
            del state["blocks.0.linear1.weight"]
            torch.save(
                state
                | {
                    rng.choice(
                        ["\x1b[31m", "x" * 99_999, "../../x.weight", "", "\ud800"[:0] + "é\n"]
                    ): torch.ones(9)
                },
                path,
            )
        elif what == "numbers":
            value = state[key]
            changed = torch.full_like(value, float("nan")) if value.is_floating_point() else value
            refused = value.is_floating_point()
            torch.save(state | {key: changed}, path)
        elif what == "legacy":
            import pickle

            content = pickle.dumps(rng.choice([Hostile(secret), {"a": Hostile(secret)}]))
            path.write_bytes(content if rng.random() < 0.5 else b"\x80\x02]" + b"(" * 10**6)
        else:
            torch.save(state, path)
            content = path.read_bytes()
            repack(
                path,
                lambda parts: parts.update({n: c[:4] for n, c in parts.items() if "/data/" in n}),
            )
            path.write_bytes(
                path.read_bytes() if rng.random() < 0.5 else content[: len(content) // 2]
            )

        def judge(_):
            from kerasmlp.runs.model import load_model

            whole = [np.isfinite(w).all() for w in load_model(run).get_weights()]
            return None if all(whole) else "weights that are no numbers"

        return Given(
            f"checkpoint: {what}", lambda: outcome("import-torch", path, "-o", run), judge, refused
        )

    return lay


# ---- exports


def wild_exports(samples, secret):
    """Graphs that read, write or run, at every depth, and files that are none."""
    import test_serving_other_models as others

    writers = {
        "ReadFile": lambda tf: lambda _: tf.io.read_file(str(secret)),
        "MatchingFiles": lambda tf: lambda _: tf.io.matching_files(str(secret))[0],
        "PyFunc": lambda tf: lambda _: tf.numpy_function(lambda: "a", [], tf.string),
        "EagerPyFunc": lambda tf: lambda _: tf.py_function(lambda: "a", [], tf.string),
        "in a branch": lambda tf: others.reading_in_a_branch,
        "RestoreV2": lambda tf: others.restoring,
        "WriteFile": lambda tf: others.writing,
    }
    choices = [*others.ALTERED, "as an operation", "as for another device", *writers]
    choices += ["link", "fifo", "short weights", "huge graph", "description"]

    def lay(folder, rng):
        import tensorflow as tf

        version = Path(shutil.copytree(samples / "gender", folder / "gender")) / "1"
        graph, weights = (
            version / "saved_model.pb",
            version / "variables" / "variables.data-00000-of-00001",
        )
        what = rng.choice(choices)
        if what in writers:
            shutil.rmtree(version)
            others.save(others.Other(writers[what](tf)), version)
        elif what == "link":
            rng.choice([graph, weights]).unlink()
            (graph if not graph.exists() else weights).symlink_to(secret)
        elif what == "fifo":
            path = rng.choice([graph, weights, version / "assets" / "model.json"])
            path.unlink()
            os.mkfifo(path)
        elif what == "short weights":
            weights.write_bytes(weights.read_bytes()[: rng.randrange(200)])
        elif what == "huge graph":
            with open(rng.choice([graph, weights]), "ab") as file:
                file.truncate(1 << 40)
        elif what == "description":
            text = rng.choice(
                [
                    '{"width": 16}',
                    "[" * 99_999,
                    '{"width": NaN, "max_samples": 0}',
                    "\0",
                    f'{{"width": {"9" * 5000}, "max_samples": 0}}',
                    '{"width": 17, "max_samples": 0}',
                ]
            )
            (version / "assets" / "model.json").write_text(text)
        else:
            saved = others.graph_of(version)
            if what == "as an operation":
                others.as_an_operation(saved, secret)
            elif what == "as for another device":
                others.as_the_same_for_another_device(saved, secret)
            else:
                others.ALTERED[what](saved)
            graph.write_bytes(saved.SerializeToString())
        ask, _ = ask_served(version)
        return Given(f"export: {what}", ask, refused=True)

    return lay
