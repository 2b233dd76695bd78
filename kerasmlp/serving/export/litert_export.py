"""The deterministic model of a run as one LiteRT (TensorFlow Lite) file, for phones and boards."""

import os
import tempfile
import zipfile

import keras
import tensorflow as tf

from kerasmlp.serving.export.model_file import new_model_file


def export_litert(run_dir: str | os.PathLike, path: str | os.PathLike) -> None:
    """Writes `embedding` `(rows, width)` → the outputs of `ModelFile`, float32.

    They are `probabilities` `(rows, classes)`, or `number` and `std` `(rows,)`.
    Signature `serving_default`, of LiteRT's built-in operations alone. What
    `describe` says is packed behind the model as `kerasmlp.json`, where LiteRT
    keeps associated files: any unzip opens the model and finds it.

    Args:
        run_dir: Finished run.
        path: File to write, `.tflite`; must not exist.

    Raises:
        InputError: if there is no finished run or the file cannot be written.
    """
    with new_model_file(run_dir, path, ".tflite") as file:
        spec = tf.TensorSpec((None, file.model.input_shape[-1]), tf.float32, name="embedding")

        def serve(embedding):
            return file.model(embedding, training=False)

        # Only of Keras' own archive does the converter take the weights as constants.
        archive = keras.export.ExportArchive()
        archive.track(file.model)
        archive.add_endpoint("serving_default", serve, input_signature=[spec])
        with tempfile.TemporaryDirectory() as folder:
            archive.write_out(folder, verbose=False)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            file.temporary.write_bytes(converter.convert())
        with zipfile.ZipFile(file.temporary, "a") as attached:
            attached.writestr("kerasmlp.json", file.description)
