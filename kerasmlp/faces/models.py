"""The models of faces in a folder: which is which, and whether they are whole."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.faces.embedder_json import has_description, read_embedder
from kerasmlp.faces.preprocessing import Preprocessing
from kerasmlp.utils.checks import InputError, check_choice, reject, reject_file
from kerasmlp.utils.files import sha256_file

LICENCE_NOTICE = (
    "insightface's pretrained models are for non-commercial research only "
    "(https://github.com/deepinsight/insightface#license)"
)
PACKS = ("buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc", "antelopev2")
DETECTORS = ("auto", None)

_SCALING = (("Sub", "_minus"), ("Mul", "_mul"))


@dataclass(frozen=True)
class FaceModels:
    """An embedder with the hash of its file and how it is asked, and a detector where there is one.

    Attributes:
        embedder: Its file.
        embedder_sha256: Hash of that.
        preprocessing: Of the pictures that it takes.
        normalize: Whether its answers are brought to norm 1.
        detector: File of the detector; None where whole pictures are embedded.
        detector_sha256: Hash of that.
        licence: Of the embedder, where `embedder.json` says it.
        source: Where it came from, likewise.
    """

    embedder: Path
    embedder_sha256: str
    preprocessing: Preprocessing
    normalize: bool = True
    detector: Path | None = None
    detector_sha256: str | None = None
    licence: str | None = None
    source: str | None = None

    def info(self, *, min_det_score: float) -> StoreInfo:
        """What a store says about the origin of its embeddings."""
        detected = self.detector is not None
        return StoreInfo(
            embedder=self.embedder.name,
            embedder_sha256=self.embedder_sha256,
            detector=self.detector.name if detected else None,
            detector_sha256=self.detector_sha256,
            min_det_score=float(min_det_score) if detected else None,
            normalized=self.normalize,
            preprocessing=self.preprocessing.to_json(),
            embedder_licence=self.licence,
            embedder_source=self.source,
        )


def find_models(
    model_dir: str | os.PathLike | None = None,
    *,
    embedder: str | os.PathLike | None = None,
    detector: str | None = "auto",
    flip: bool = False,
) -> FaceModels:
    """Finds a detector and an embedder.

    Args:
        model_dir: Folder of insightface's models, told apart as insightface does. An
            `embedder.json` in it counts as `embedder`.
        embedder: Folder of an embedder with its `embedder.json`; the detector is that of
            `model_dir` then.
        detector: `"auto"`, or None: pictures are embedded whole.
        flip: Whether mirrored pictures are embedded too.

    Raises:
        InputError: if a folder or one of the models is missing, a file is not whole, or
            they do not go together.
    """
    check_choice("detector", detector, DETECTORS)
    if embedder is None and model_dir is not None and has_description(model_dir):
        embedder = model_dir
    if embedder is None:
        models = _pack(model_dir, detector)
    else:
        models = _described(model_dir, embedder, detector)
    return replace(models, preprocessing=replace(models.preprocessing, flip=flip))


def _pack(model_dir: str | os.PathLike | None, detector: str | None) -> FaceModels:
    """insightface's detector and embedder; of that all but the file is known."""
    if model_dir is None:
        reject("model_dir", "must be given, or an embedder with its embedder.json", None)
    folder = Path(model_dir).expanduser()
    if not folder.is_dir():
        reject_file(
            folder,
            "must be a folder of insightface models: unpack one from "
            "https://github.com/deepinsight/insightface/tree/master/model_zoo or pass "
            f"--download buffalo_l. Mind that {LICENCE_NOTICE}",
            "no such folder",
        )
    kinds = ("embedder",) if detector is None else ("detector", "embedder")
    found = _by_kind(folder, kinds)
    path, graph = found["embedder"]
    preprocessing = arcface_preprocessing(graph)
    if detector is None:
        preprocessing = replace(preprocessing, alignment="none")
    models = FaceModels(path, sha256_file(path), preprocessing)
    return models if detector is None else _with_detector(models, found["detector"][0])


def _described(
    model_dir: str | os.PathLike | None, embedder: str | os.PathLike, detector: str | None
) -> FaceModels:
    """An embedder by its `embedder.json`, with the detector of a folder where it needs one."""
    said = read_embedder(embedder)
    preprocessing, whole = said.preprocessing, detector is None
    if whole:
        preprocessing = replace(preprocessing, alignment="none", margin=None)
    models = FaceModels(
        said.path, sha256_file(said.path), preprocessing, said.normalize,
        licence=said.licence, source=said.source,
    )  # fmt: skip
    alone = model_dir is None or Path(model_dir) == Path(embedder)
    if preprocessing.alignment == "none":
        if not alone:
            requirement = "must be left out where pictures are embedded whole, without a detector"
            reject("model_dir", requirement, os.fspath(model_dir))
        return models
    if model_dir is None:
        requirement = f"must be given for its detector (alignment {preprocessing.alignment!r})"
        reject("model_dir", requirement, None)
    found = _by_kind(Path(model_dir).expanduser(), ("detector",))
    return _with_detector(models, found["detector"][0])


def _with_detector(models: FaceModels, path: Path) -> FaceModels:
    return replace(models, detector=path, detector_sha256=sha256_file(path))


def _by_kind(folder: Path, kinds: Sequence[str]) -> dict[str, tuple[Path, Any]]:
    """The first .onnx of each kind, with its graph."""
    found: dict[str, tuple[Path, Any]] = {}
    paths = sorted(folder.glob("*.onnx"))
    for path in paths:
        graph = read_onnx(path).graph
        if kind := _kind(graph):
            found.setdefault(kind, (path, graph))
    for kind in kinds:
        if kind not in found:
            names = ", ".join(path.name for path in paths) or "no .onnx file"
            reject_file(folder, f"must hold a face {kind} (.onnx)", names)
    return found


def arcface_preprocessing(graph: Any) -> Preprocessing:
    """How insightface asks its embedders: those of MXNet subtract and divide themselves."""
    names = [node.name for node in graph.node[:8]]
    inside = all(any(n.startswith(words) for n in names) for words in _SCALING)
    mean, std = (0.0, 1.0) if inside else (127.5, 127.5)
    side = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return Preprocessing(
        input_size=(side, side), layout="nchw", colour_order="rgb", mean=(mean,) * 3,
        std=(std,) * 3, alignment="arcface", output=graph.output[0].name,
    )  # fmt: skip


def download_models(name: str, root: str | os.PathLike = "~/.insightface") -> Path:
    """Fetches one of insightface's model packs, unless it is there already, and returns its folder.

    Raises:
        InputError: if the pack is unknown or cannot be fetched.
    """
    if name not in PACKS:
        reject_file("--download", f"must be one of {', '.join(PACKS)}", name)
    folder = Path(root).expanduser() / "models" / name
    if folder.is_dir():
        return folder
    try:
        from insightface.utils.storage import ensure_available

        folder = Path(ensure_available("models", name, root=str(root)))
    except ImportError as error:
        missing_package(error)
    except Exception as error:  # requests' and zipfile's kinds
        reject_file(name, "must be downloadable", " ".join(str(error).split())[:200])
    return folder


def exact_fast_prelu(path: Path) -> bytes:
    """Returns the model with PReLU written as max(x, slope·x), which gives the same bits.

    onnxruntime's PReLU on a CPU is not vectorised and takes half of
    MobileFaceNet's time. The two are equal where no slope exceeds 1.
    """
    import onnx

    model = read_onnx(path)
    slopes = {i.name: i for i in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        slope = slopes.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None or onnx.numpy_helper.to_array(slope).max() > 1:
            nodes.append(node)
            continue
        (x, _), (y,) = node.input, node.output
        nodes.append(onnx.helper.make_node("Mul", list(node.input), [f"{y}_scaled"]))
        nodes.append(onnx.helper.make_node("Max", [x, f"{y}_scaled"], [y]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def read_onnx(path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        missing_package(error)
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own kinds
        reject_file(path, "must be a whole ONNX file (download it again)", f"{error}")
    if not model.graph.output:
        reject_file(path, "must be a whole ONNX file (download it again)", "one without outputs")
    if any(len(tensor.external_data) for tensor in model.graph.initializer):
        requirement = "must hold its weights itself (`onnx.save(onnx.load(a), b)` puts them in)"
        reject_file(path, requirement, "weights in another file")
    return model


def _kind(graph: Any) -> str | None:
    """insightface's own rule, by inputs and outputs."""
    if len(graph.output) >= 5:
        return "detector"
    shape = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    weights = {i.name for i in graph.initializer}
    inputs = [i for i in graph.input if i.name not in weights]
    if len(graph.output) != 1 or len(inputs) != 1 or len(shape) != 4:
        return None
    square = shape[2] == shape[3] and shape[2] >= 112 and shape[2] % 16 == 0 and shape[2] != 192
    return "embedder" if square else None


def missing_package(error: ImportError) -> NoReturn:
    raise InputError(
        f"faces in photos need insightface and onnxruntime ({error}): "
        "install them with `pip install kerasmlp[faces]`"
    ) from None
