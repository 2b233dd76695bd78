"""The deterministic model of a run as one LiteRT (TensorFlow Lite) file, for phones and boards."""

import json
import os
import tempfile
import zipfile

import keras
import tensorflow as tf

from kerasmlp.serving.export.model_file import new_model_file
from kerasmlp.serving.export.saved_model import describe


def export_litert(run_dir: str | os.PathLike, path: str | os.PathLike) -> None:
    """Writes `embedding` `(rows, width)` → `probabilities` `(rows, classes)`, float32.

    Signature `serving_default`, of LiteRT's built-in operations alone. What
    `describe` says is packed behind the model as `kerasmlp.json`, where LiteRT
    keeps associated files: any unzip opens the model and finds it.

    Args:
        run_dir: Finished run.
        path: File to write, `.tflite`; must not exist.

    Raises:
        InputError: if there is no finished run or the file cannot be written.
    """
    with new_model_file(run_dir, path, ".tflite") as (predictor, model, temporary):
        spec = tf.TensorSpec((None, predictor.config["width"]), tf.float32, name="embedding")

        def serve(embedding):
            return {"probabilities": model(embedding, training=False)}

        # Only of Keras' own archive does the converter take the weights as constants.
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", serve, input_signature=[spec])
        with tempfile.TemporaryDirectory() as folder:
            archive.write_out(folder, verbose=False)
            temporary.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())
        with zipfile.ZipFile(temporary, "a") as attached:
            attached.writestr("kerasmlp.json", json.dumps(describe(predictor), ensure_ascii=False))
