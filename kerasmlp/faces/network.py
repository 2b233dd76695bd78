"""An embedder that answers batches of crops, whatever library computes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.faces.models import FaceModels, exact_fast_prelu, missing_package
from kerasmlp.faces.preprocessing import Preprocessing
from kerasmlp.utils.checks import InputError, check_optional_int, reject_file

GPU_BATCH_SIZE = 32
_LARGEST_BATCH = 1024
_SAME = 0.01  # most by which what is answered together may be off: a cosine of .9999
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_MUST = "must be a working embedder"


@dataclass(frozen=True)
class Opened:
    """A model that is loaded.

    Attributes:
        run: From a batch to what the model answers.
        shape: Of a batch; what is no whole number may be any.
        provider: What computes it.
        versions: Of the libraries that decide its last bits.
    """

    run: Callable[[np.ndarray], np.ndarray]
    shape: tuple
    provider: str
    versions: dict[str, str]


class EmbedderNetwork:
    """Turns crops of the embedder's size into features, several in one call.

    Args:
        models: Of whom the embedder is.
        device: `"auto"`, `"cpu"` or `"cuda"`, as for `FaceFinder`.
        threads: CPU threads; 0 leaves it to the library.
        batch_size: Crops in one call; None takes one on a CPU and 32 on a GPU. A model
            that takes a fixed number, or answers otherwise together than one by one,
            sets its own: `note` says so.

    Raises:
        InputError: if the model does not work, does not fit its `embedder.json`, or its
            answers are no vectors of finite numbers.
    """

    def __init__(
        self, models: FaceModels, *, device: str, threads: int, batch_size: int | None = None
    ):
        check_optional_int("batch_size", batch_size, minimum=1, maximum=_LARGEST_BATCH)
        self.path, self.preprocessing = models.embedder, models.preprocessing
        opener = _open_keras if self.path.suffix == ".keras" else _open_onnx
        self._model = opener(self.path, self.preprocessing, device, threads)
        self.provider, self.versions = self._model.provider, self._model.versions
        _check_shape(self.path, self._model.shape, self.preprocessing)
        fixed = self._model.shape[0] if isinstance(self._model.shape[0], int) else None
        on_gpu = self.provider.startswith("CUDA")
        self.batch_size = fixed or batch_size or (GPU_BATCH_SIZE if on_gpu else 1)
        self._fills_up = fixed or on_gpu  # a GPU looks for its best way anew for each size
        self.note = None
        if fixed and batch_size not in (None, fixed):
            self.note = f"{self.path.name} takes {fixed} at a time: so it is asked"
        self.width = self._probe(fixed)

    def features(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """The answers to crops, BGR of 8 bits, shape `(crops, width)`, float32."""
        starts = range(0, len(crops), self.batch_size)
        batches = [self._ask(crops[k : k + self.batch_size]) for k in starts]
        return np.concatenate(batches) if batches else np.empty((0, self.width), np.float32)

    def _ask(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        batch = self.preprocessing.batch(list(crops))
        if self._fills_up and len(crops) < self.batch_size:
            missing = (self.batch_size - len(crops), *batch.shape[1:])
            batch = np.concatenate([batch, np.zeros(missing, batch.dtype)])
        answers = np.asarray(self._model.run(batch), np.float32)
        vectors = answers.ndim > 1 and answers.size == len(batch) * max(answers.shape[1:])
        if not vectors or len(answers) != len(batch):
            came = f"shape {answers.shape} for {len(batch)}"
            reject_file(self.path, f"{_MUST} that gives one vector for each picture", came)
        return answers.reshape(len(batch), -1)[: len(crops)]

    def _probe(self, fixed: int | None) -> int:
        """The width of the answers to pictures of noise, alone and together."""
        height, width = self.preprocessing.input_size
        noise = [*np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)]
        wanted, self.batch_size = self.batch_size, fixed or 1
        alone = np.concatenate([self.features([picture]) for picture in noise])
        if not np.isfinite(alone).all():
            reject_file(self.path, f"{_MUST} that answers with finite numbers", "NaN or infinity")
        self.batch_size = wanted
        fault = self._fault_together(noise, alone) if wanted > 1 else None
        if fault and fixed:
            requirement = f"{_MUST} that answers each picture of a batch by itself"
            reject_file(self.path, requirement, f"one that {fault}")
        if fault:
            self.note = f"{self.path.name} {fault}: so it is asked one by one"
            self.batch_size = 1
        return alone.shape[1]

    def _fault_together(self, noise: Sequence[np.ndarray], alone: np.ndarray) -> str | None:
        try:
            together = self.features(noise)
        except InputError:
            return "takes one picture at a time"
        return None if _alike(together, alone) else "answers otherwise in a batch"


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((np.linalg.norm(a - b, axis=1) <= _SAME * np.linalg.norm(b, axis=1)).all())


def _check_shape(path: Path, shape: tuple, preprocessing: Preprocessing) -> None:
    """Holds what the model says of its input against `embedder.json`."""
    sides = list(preprocessing.input_size)
    at = 1 if preprocessing.layout == "nchw" else 3
    expected = [None, *sides]
    expected.insert(at, preprocessing.channels)
    fits = len(shape) == 4 and all(
        not isinstance(came, int) or wanted in (None, came)
        for came, wanted in zip(shape, expected, strict=True)
    )
    if not fits:
        words = " × ".join(map(str, expected[1:]))
        came = " × ".join(str(s) if isinstance(s, int) else "any" for s in shape[1:])
        requirement = f"{_MUST} of pictures {words} ({preprocessing.layout}), as said of it"
        reject_file(path, requirement, came or "another input")


def _open_onnx(path: Path, preprocessing: Preprocessing, device: str, threads: int) -> Opened:
    try:
        import onnxruntime
    except ImportError as error:
        missing_package(error)
    session = open_session(path, device, threads)
    if len(inputs := session.get_inputs()) != 1:
        names = ", ".join(i.name for i in inputs)
        reject_file(path, f"{_MUST} with one input", names or "none")
    (taken,) = inputs
    if taken.type not in _FLOATS:
        reject_file(path, f"{_MUST} whose input is floats", taken.type)
    outputs = {o.name: o.type for o in session.get_outputs()}
    output = _output_of(path, list(outputs), preprocessing.output)
    if outputs[output] not in _FLOATS:
        reject_file(path, f"{_MUST} whose answers are floats", outputs[output])

    def run(batch: np.ndarray) -> np.ndarray:
        fed = {taken.name: np.ascontiguousarray(batch, _FLOATS[taken.type])}
        try:
            return session.run([output], fed)[0]
        except Exception as error:  # onnxruntime raises its own kinds, none of them public
            reject_file(path, _MUST, " ".join(str(error).split())[:200])

    provider, versions = session.get_providers()[0], {"onnxruntime": onnxruntime.__version__}
    return Opened(run, tuple(taken.shape), provider, versions)


def open_session(path: Path, device: str, threads: int) -> Any:
    """A session of onnxruntime with a model of which only this file is read."""
    import onnxruntime

    providers, options = providers_of(device), session_options(threads)
    content = exact_fast_prelu(path) if len(providers) == 1 else path.read_bytes()
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:
        reject_file(path, "must be a working ONNX model", " ".join(str(error).split())[:200])


def session_options(threads: int) -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return options


def providers_of(device: str) -> list[str]:
    """What onnxruntime is to try."""
    import onnxruntime

    gpu = device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return ["CUDAExecutionProvider"] * gpu + ["CPUExecutionProvider"]


def _open_keras(path: Path, preprocessing: Preprocessing, device: str, threads: int) -> Opened:
    from kerasmlp.utils.tensorflow_import import import_tensorflow

    import_tensorflow()
    import keras
    import tensorflow

    from kerasmlp.utils.keras_file import load_keras_file

    gpus = tensorflow.config.list_physical_devices("GPU") if device != "cpu" else []
    model = load_keras_file(path, path.read_bytes())
    if len(model.inputs) != 1:
        reject_file(path, f"{_MUST} with one input", f"{len(model.inputs)}")
    outputs = dict(zip(model.output_names, model.outputs, strict=True))
    chosen = outputs[_output_of(path, list(outputs), preprocessing.output)]
    model = keras.Model(model.inputs, chosen)
    place = "GPU:0" if gpus else "CPU:0"
    call = tensorflow.function(lambda batch: model(batch, training=False))

    def run(batch: np.ndarray) -> np.ndarray:
        try:
            with tensorflow.device(place):
                return call(tensorflow.constant(batch)).numpy()
        except Exception as error:  # whatever TensorFlow meets
            reject_file(path, _MUST, " ".join(str(error).split())[:200])

    provider = "CUDA (TensorFlow)" if gpus else "CPU (TensorFlow)"
    versions = {"tensorflow": tensorflow.__version__, "keras": keras.__version__}
    return Opened(run, tuple(model.inputs[0].shape), provider, versions)


def _output_of(path: Path, outputs: list[str], name: str | None) -> str:
    if name is None and len(outputs) != 1:
        requirement = f"{_MUST} with one output, or embedder.json must name it as `output`"
        reject_file(path, requirement, ", ".join(outputs) or "none")
    if name is not None and name not in outputs:
        reject_file(path, f"{_MUST} with the output {name!r}", ", ".join(outputs)[:100])
    return outputs[0] if name is None else name
