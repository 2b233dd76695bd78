"""Runs and their models made to run code, take memory or reach elsewhere."""

import io
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
from damage import RAW, VALUES, outcome, without_hashes
from fuzz_damaged import Given
from fuzz_models import run_commands


def repack(path, change):
    """A `.keras` file whose parts are others: `change` gets them by name."""
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    how = change(parts) or zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how) as new:
        for name, content in parts.items():
            new.writestr(name, content)


_CLASSES = [  # class_name, module, and what else Keras would look at
    ("Lambda", "keras.layers", {"config": {"function": {"class_name": "__lambda__"}}}),
    ("Lambda", "keras.src.layers.core.lambda_layer", {"registered_name": "kerasmlp>L"}),
    ("TFSMLayer", "keras.layers", {"config": {"filepath": "../../outside"}}),
    ("function", "os", {"config": "system"}),
    ("function", "builtins", {"config": "eval", "registered_name": "eval"}),
    ("function", "builtins", {"config": "open", "registered_name": "kerasmlp>open"}),
    ("Popen", "subprocess", {"config": {"args": ["touch", "x"]}}),
    ("get_file", "keras.utils", {"config": {"origin": "file:///etc/passwd"}}),
    ("TextVectorization", "keras.layers", {"config": {"vocabulary": "../../outside/secret"}}),
    ("StringLookup", "keras.layers", {"config": {"vocabulary": "../../outside/secret"}}),
    ("__tensor__", None, {"config": {"value": [[0.0] * 9] * 9, "dtype": "float32"}}),
    ("__numpy__", None, {"config": {"value": [1], "dtype": "object"}}),
    ("__typespec__", "os", {"spec_name": "system", "config": ["id"]}),
    ("Sequential", "keras", {"config": {"layers": [{}] * 99}}),
]


def wild_keras(path, rng, secret):
    what = rng.choice(
        ["class", "class", "size", "deep", "names", "packed", "weights", "weights", "cut weights"]
    )

    def change(parts):
        config = json.loads(parts["config.json"])
        layers = [
            v
            for v in config["config"]["layers"]
            if v["class_name"] in ("Dense", "BatchNormalization")
        ]
        inner = rng.choice(layers)
        if what == "class":
            name, module, more = rng.choice(_CLASSES)
            new = {"class_name": name, "module": module, **more}
            how = rng.choice(["layer", "activation", "initializer", "whole"])
            if how == "layer":
                inner.update(new)
            elif how == "whole":
                config = new
            else:
                key = "activation" if how == "activation" else "gamma_initializer"
                (layers[-1] if how == "activation" else inner)["config"][key] = new
        elif what == "size":
            layers[-1]["config"]["units"] = rng.choice(
                [10**6, 10**9, 10**15, -1, 0, 1.5, "x", 2**63, True]
            )
        elif what == "deep":
            parts["config.json"] = b'{"a": ' * rng.choice([99, 100_000]) + b"1" + b"}" * 99
            return None
        elif what == "names":
            parts[rng.choice(["../../outside/written", str(secret), "notes.txt", "assets/x"])] = (
                b"x"
            )
        elif what == "packed":
            parts["metadata.json"] = bytes(10_000_000)
            return zipfile.ZIP_DEFLATED
        else:
            parts["model.weights.h5"] = wild_weights(parts["model.weights.h5"], rng, secret)
        parts["config.json"] = json.dumps(config).encode()
        return None

    repack(path, change)
    return what


def wild_weights(content, rng, secret):
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as weights:
        found = []
        weights.visititems(
            lambda name, item: found.append(name) if hasattr(item, "shape") else None
        )
        name = rng.choice(found)
        shape = weights[name].shape
        del weights[name]
        what = rng.randrange(8)
        if what == 0:
            weights[name] = h5py.ExternalLink(str(secret), "/")
        elif what == 1:
            size = 4 * int(np.prod(shape))
            weights.create_dataset(name, shape, "f4", external=[(str(secret), 0, max(size, 4))])
        elif what == 2:
            weights.create_dataset(name, (1 << 40,), "f4")
        elif what == 3:
            weights.create_dataset(
                name, (1 << 30, 9), "f4", chunks=(1 << 16, 9), compression="gzip"
            )
        elif what == 4:
            weights[name] = h5py.SoftLink("/")
        elif what == 5:
            weights[name] = weights["/"]
        elif what == 6:
            weights[name] = np.full(shape, rng.choice([np.nan, np.inf]), "f4")
        else:
            layout = h5py.VirtualLayout(shape, "f4")
            layout[...] = h5py.VirtualSource(str(secret), "x", shape, "f4")
            weights.create_virtual_dataset(name, layout)
    return file.getvalue()


def wild_run(broken, rng, secret):
    """A run of which one file is a lie, a link or no file."""
    names = ["config.json", "calibration.json", "report.json", "seen.npy", "DONE", "model.keras"]
    name = rng.choice(names)
    path = broken / name
    what = rng.choice(["link", "fifo", "folder", "json", "json", "manifest", "npy", "huge"])
    if what in ("link", "fifo", "folder"):
        path.unlink()
        if what == "link":
            path.symlink_to(rng.choice([path, "/dev/zero", broken / "none"]))
        else:
            os.mkfifo(path) if what == "fifo" else path.mkdir()
    elif what == "json":
        name = rng.choice([n for n in names if n.endswith("json")])
        raw = rng.choice(
            [v for v in VALUES if isinstance(v, str) and v.startswith(RAW)]
        ).removeprefix(RAW)
        config = json.loads((broken / name).read_text())
        key = rng.choice(sorted(config))
        config[key] = "@@"
        (broken / name).write_text(json.dumps(config).replace('"@@"', raw))
        what = f"{key} = {raw[:20]}"
    elif what == "manifest":
        places = [secret, "../../../outside/secret", "x" * 9999, "/dev/zero"]
        line = f"{'0' * 64}  {rng.choice(places)}\n"
        (broken / "DONE").write_text(
            rng.choice([line * rng.choice([1, 99_999]), (broken / "DONE").read_text() + line])
        )
        return f"DONE: {line[66:90]}"
    elif what == "npy":
        name = "seen.npy"
        shape = rng.choice(
            ["(1000000000000,)", "(3,)", "(-1,)", "()", "(9, 9)", f"({'9' * 4000},)"]
        )
        kind = rng.choice(["<u8", "|O", "<f8"])
        text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
        text = text.encode().ljust(118) + b"\n"
        rest = (broken / name).read_bytes()[128:]
        (broken / name).write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + rest)
    else:
        with open(path, "ab") as file:
            file.truncate(1 << 40)
    return f"{name}: {what}"


def wild_runs(samples, secret):
    def lay(folder, rng):
        broken = Path(shutil.copytree(samples / "run", folder / "run"))
        kept_hashes = rng.random() < 0.2
        if not kept_hashes:
            without_hashes(broken)
        of_keras = rng.random() < 0.5
        how = (
            wild_keras(broken / "model.keras", rng, secret)
            if of_keras
            else wild_run(broken, rng, secret)
        )
        name = rng.choice(["predict", "predict", "evaluate", "export-model"])
        command = run_commands(samples)[name](broken, folder.parent / "out")

        def judge(out):
            return "NaN in the answer" if "NaN" in out or "Infinity" in out else None

        return Given(f"{name}: {how}", lambda: outcome(*command), judge)

    return lay
