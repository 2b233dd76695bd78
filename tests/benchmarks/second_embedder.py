"""A second embedder, end to end: a small convolutional network, trained here, exported, asked.

It learns age and gender from 5,400 grey pictures of UTKFace in some minutes of two cores; its
128 features become an .onnx file with an `embedder.json`. Then photos → store → models →
answers, by the commands, beside the same with insightface's embedder; and each store is
refused by the other's models. Last line: one JSON object.
`python tests/benchmarks/second_embedder.py [FOLDER]`; models need the extra `onnx`.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kerasmlp.cli import run_command

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SIDE, WIDTH, EPOCHS = 64, 128, 6
SAYS = {
    "model": "small.onnx",
    "input_size": [SIDE, SIDE],
    "layout": "nhwc",
    "colour_order": "gray",
    "mean": [127.5],
    "std": [64],
    "alignment": "crop",
    "margin": 0.2,
    "output": "embedding",
    "normalize": True,
    "licence": "non-commercial research only, as UTKFace's",
    "source": "tests/benchmarks/second_embedder.py",
}


def learn(archive):
    """The network that was trained, up to its features."""
    import keras
    from PIL import Image

    pictures, ages, genders = [], [], []
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if not (match := re.search(r"train/.*?(\d+)_([01])_\d_\d+\.jpg$", name)):
                continue
            picture = Image.open(io.BytesIO(file.read(name))).convert("L").resize((SIDE, SIDE))
            pictures.append(np.asarray(picture))
            ages.append(int(match[1]))
            genders.append(int(match[2]))
    x = (np.stack(pictures).astype(np.float32)[..., None] - SAYS["mean"][0]) / SAYS["std"][0]
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = y = keras.Input((SIDE, SIDE, 1))
    augmented = layers.RandomTranslation(0.08, 0.08, fill_mode="constant")
    y = layers.RandomFlip("horizontal")(augmented(y))
    core = first = keras.Input((SIDE, SIDE, 1))
    for filters in (16, 32, 64, 128):
        core = layers.Conv2D(filters, 3, padding="same", use_bias=False)(core)
        core = layers.Activation("relu")(layers.BatchNormalization()(core))
        core = layers.MaxPooling2D()(core)
    core = layers.GlobalAveragePooling2D()(core)
    embedder = keras.Model(first, layers.Dense(WIDTH, name="embedding")(core))
    y = embedder(y)
    outputs = {
        "age": layers.Dense(1, name="age")(y),
        "gender": layers.Dense(1, activation="sigmoid", name="gender")(y),
    }
    model = keras.Model(inputs, outputs)
    losses = {"age": "mae", "gender": "binary_crossentropy"}
    model.compile(keras.optimizers.Adam(2e-3), losses, loss_weights={"age": 2.0, "gender": 1.0})
    targets = {"age": np.array(ages) / 20, "gender": np.array(genders)}
    model.fit(x, targets, batch_size=64, epochs=EPOCHS, verbose=2)
    return embedder


def export(embedder, folder):
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    embedder.export(str(folder / "small.onnx"), format="onnx", verbose=False)
    model = onnx.load(folder / "small.onnx")
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["embedding" if n == output.name else n for n in node.output]
    output.name = "embedding"
    onnx.save(model, folder / "small.onnx")
    (folder / "embedder.json").write_text(json.dumps(SAYS, indent=2))


def photos_for_stores(archive, folder):
    """Those that the embedder has not learned from."""
    with zipfile.ZipFile(archive) as file:
        names = [n for n in file.namelist() if re.search(r"(validation|test)/.*\.jpg$", n)]
        for name in names:
            (folder / Path(name).name).write_bytes(file.read(name))


def command(name, *arguments):
    """Runs a command of kerasmlp; returns what it printed, and its errors."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = run_command(name, [str(a) for a in arguments])
    return code, out.getvalue(), errors.getvalue()


def done(name, *arguments):
    code, out, errors = command(name, *arguments)
    assert code == 0, errors[-2000:]
    return out


def measure(folder, name, *models):
    """A store of the photos by these models, and how well two models of it answer."""
    store = folder / f"{name}.h5"
    began = time.monotonic()
    arguments = ["--layout", "utkface", *models, "--workers", "2", "--resume"]
    kept = done("extract-embeddings", folder / "photos", "-o", store, *arguments)
    result = {
        "seconds": round(time.monotonic() - began, 1),
        "kept": int(kept.split()[1].replace(",", "")),
    }
    for label, key in (("age", "mae_years"), ("gender", "accuracy")):
        run = folder / f"{name}-{label}"
        how = ["--store", store, "--run-dir", run, "--test-share", "0.2", "--json", "--force"]
        report = json.loads(done(f"train-{label}", *how).splitlines()[-1])
        result[f"{label}_{key}"] = round(report["test"][key], 3)
    return result


def refusal(*arguments):
    code, _, errors = command(*arguments)
    assert code == 2, "it was not refused"
    return errors.strip().splitlines()[-1]


def main(folder: Path) -> None:
    archive, models = SHARED / "utkface91.zip", SHARED / "models"
    if not archive.is_file():
        sys.exit(f"needs {archive}")
    small = folder / "small"
    if not (small / "embedder.json").is_file():
        export(learn(archive), small)
    (folder / "photos").mkdir(exist_ok=True)
    photos_for_stores(archive, folder / "photos")
    own = ["--model-dir", models, "--embedder", small]
    results = {"small": measure(folder, "small", *own)}
    results["insightface"] = measure(folder, "insightface", "--model-dir", models)
    photo = sorted((SHARED / "faces/utkface").glob("*_*_*_*.jpg"))[0]
    answer = done("predict", folder / "small-age", photo, *own, "--num-samples", "8")
    results["answer"] = {photo.name: json.loads(answer)["age"]["age_years"]}
    refused = [
        refusal("predict", folder / "small-age", folder / "insightface.h5"),
        refusal("predict", folder / "insightface-age", folder / "small.h5"),
        refusal("predict", folder / "small-age", photo, "--model-dir", models),
        refusal("predict", folder / "small-age", photo, "--embedder", small, "--detector", "none"),
    ]
    print(*refused, sep="\n")
    print(json.dumps(results))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
