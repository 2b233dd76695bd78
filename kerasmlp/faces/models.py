"""The .onnx files of a face model folder: which is which, and whether they are whole."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.files import sha256_file

LICENCE_NOTICE = (
    "insightface's pretrained models are for non-commercial research only "
    "(https://github.com/deepinsight/insightface#license)"
)
PACKS = ("buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc", "antelopev2")


@dataclass(frozen=True)
class FaceModels:
    """A detector and an embedder, with the hashes of their files."""

    detector: Path
    detector_sha256: str
    embedder: Path
    embedder_sha256: str

    def info(self, *, min_det_score: float) -> StoreInfo:
        """What a store says about the origin of its embeddings."""
        return StoreInfo(
            embedder=self.embedder.name,
            embedder_sha256=self.embedder_sha256,
            detector=self.detector.name,
            detector_sha256=self.detector_sha256,
            min_det_score=float(min_det_score),
        )


def find_models(model_dir: str | os.PathLike) -> FaceModels:
    """Finds the detector and the ArcFace embedder in a folder, as insightface tells them apart.

    Raises:
        InputError: if the folder or one of them is missing, or a file is not whole.
    """
    folder = Path(model_dir).expanduser()
    if not folder.is_dir():
        reject_file(
            folder,
            "must be a folder of insightface models: unpack one from "
            "https://github.com/deepinsight/insightface/tree/master/model_zoo or pass "
            f"--download buffalo_l. Mind that {LICENCE_NOTICE}",
            "no such folder",
        )
    found: dict[str, Path] = {}
    paths = sorted(folder.glob("*.onnx"))
    for path in paths:
        kind = _kind(_read_onnx(path).graph)
        if kind:
            found.setdefault(kind, path)
    for kind in ("detector", "embedder"):
        if kind not in found:
            names = ", ".join(path.name for path in paths) or "no .onnx file"
            reject_file(folder, f"must hold a face {kind} (.onnx)", names)
    return FaceModels(
        found["detector"],
        sha256_file(found["detector"]),
        found["embedder"],
        sha256_file(found["embedder"]),
    )


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

    model = _read_onnx(path)
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


def _read_onnx(path: Path) -> Any:
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
