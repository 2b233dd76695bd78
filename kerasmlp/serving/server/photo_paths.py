"""Photos instead of embeddings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from kerasmlp.data.stores.store_info import PREPROCESSING, StoreInfo, check_same_embedder
from kerasmlp.serving.server.http_service import MODEL, HttpService
from kerasmlp.serving.server.photo_process import PhotoProcess
from kerasmlp.serving.server.private_copy import DESCRIPTION
from kerasmlp.serving.server.questions import Form, Question, check_rows, integers_of, refuse
from kerasmlp.serving.server.rest_answers import Refusal, expected
from kerasmlp.serving.server.rest_json import encode
from kerasmlp.serving.server.served_models import ServedModel
from kerasmlp.serving.server.served_version import ServedVersion
from kerasmlp.serving.server.turns import Turns
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.schema import check_object, flag, optional, text

_BEGINNINGS = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n\x1a\n"}
_NUMBERS = ("num_samples", "seed")
_EMBEDDER = {
    "embedder": optional(text()),
    "embedder_sha256": optional(text()),
    "preprocessing": optional(PREPROCESSING),
    "normalized": optional(flag),
}


class PhotoPaths:
    """`POST /v1/models/NAME[/versions/N or /labels/LABEL]:embed`: the faces of a photo.

    The body is the photo; `?num_samples=64&seed=0` asks for the mean of MC dropout. The answer
    has `faces`, the best first, with `box` (left, top, right, bottom), `det_score` and
    `embedding`, and to each of them one of the `predictions`, as `:predict` has them. Photos
    are never written to disk.

    Args:
        service: Whose models, limits and errors these are.
        photos: Who looks at them.
    """

    def __init__(self, service: HttpService, photos: PhotoProcess):
        self._service = service
        self._photos = photos
        self._turns = Turns()

    def routes(self) -> list[web.RouteDef]:
        return [web.post(MODEL + ":embed", self._embed, expect_handler=expected)]

    async def _embed(self, request: web.Request) -> web.Response:
        async def question_of(version: ServedVersion) -> Question:
            try:
                check_embedder(version, self._photos)
            except InputError as error:
                raise Refusal(400, f"this model takes no photos: {error}") from None
            return await self._question(request, version)

        def encoded(question: Question, outputs: Mapping, number: int) -> web.Response:
            rows = question.inputs["embedding"]
            faces = zip(question.wanted["faces"], rows, strict=True)
            found = [{**face, "embedding": row} for face, row in faces]
            head = orjson.dumps({"faces": found}, option=orjson.OPT_SERIALIZE_NUMPY)
            body = head[:-1] + b"," + encode(outputs, by_row=True)[1:]
            return web.Response(body=body, content_type="application/json")

        return await self._service.answer(request, question_of, encoded)

    async def _question(self, request: web.Request, version: ServedVersion) -> Question:
        service, kind = self._service, request.content_type
        size = service.body_size(request)
        if kind not in _BEGINNINGS:
            raise Refusal(415, f"the body must be {' or '.join(_BEGINNINGS)}")
        form = Form(**service.models.form_of(version))
        numbers = _numbers(request, version)
        for name, number in numbers.items():  # before the photo, which takes longer
            integers_of(name, [number], 1, form)

        def find(photo: bytes) -> tuple:
            if not photo.startswith(_BEGINNINGS[kind]):
                reject_file("body", f"must be {kind}", "something else")
            return self._photos.find(photo)

        try:
            faces, embeddings = await service.models.bodies.work(request, size, self._turns, find)
        except TimeoutError:
            raise Refusal(408, "the body did not arrive in time") from None
        check_rows("faces", len(faces), form.max_rows)
        inputs = {"embedding": embeddings}
        inputs |= {k: integers_of(k, [v], len(faces), form) for k, v in numbers.items()}
        signature = "serve_mc" if numbers else "serving_default"
        return Question(signature, inputs, {"faces": faces})


def open_photos(models: Mapping[str, ServedModel], timeout_s: float, **how: Any) -> PhotoProcess:
    """Starts who looks at photos for models, as these have learned.

    Args:
        models: As of `load_models`.
        timeout_s: For one photo.
        how: Arguments of `FaceFinder`.

    Raises:
        InputError: if an embedder is missing or damaged, or no model was trained on it.
    """
    versions = [version for model in models.values() for version in model.versions.values()]
    said = [_learned_from(version).get("preprocessing") or {} for version in versions]
    photos = PhotoProcess(timeout_s, flip=all(one.get("flip") for one in said), **how)
    errors = []
    for version in versions:
        try:
            check_embedder(version, photos)
        except InputError as error:
            errors.append(error)
    if len(errors) == len(versions):
        photos.stop()
        raise errors[0]
    return photos


def check_embedder(version: ServedVersion, photos: PhotoProcess) -> None:
    """Rejects a model that was trained on embeddings of another embedder.

    Raises:
        InputError: saying of which.
    """
    known = _learned_from(version)
    names = ("embedder", "embedder_sha256", "preprocessing")
    expected = StoreInfo(**{k: known.get(k) for k in names})
    check_same_embedder("the embedder", photos.info, expected)
    if photos.width != version.width:
        requirement = f"must give embeddings of width {version.width}"
        reject_file("the embedder", requirement, f"{photos.width}")
    if photos.info.normalized != known.get("normalized", photos.info.normalized):
        came = "normalised" if photos.info.normalized else "not normalised"
        reject_file("the embedder", "must give rows as in training", f"rows that are {came}")


def _learned_from(version: ServedVersion) -> dict[str, Any]:
    """The description of a version, if what it says of the embedder is what an export says."""
    place = Path(*version.path.parts[-2:], DESCRIPTION)  # who asks learns no more of where it lies
    return check_object(place, version.description, _EMBEDDER, "the description of a model")


def _numbers(request: web.Request, version: ServedVersion) -> dict[str, int]:
    """Both of those of MC dropout, or none."""
    given = {k: request.query.getall(k) for k in request.query}
    if not given:
        return {}
    if sorted(given) != sorted(_NUMBERS) or any(len(values) > 1 for values in given.values()):
        refuse("query", f"must be empty or {' and '.join(_NUMBERS)}, each once", [*given])
    if "serve_mc" not in version.signatures:
        refuse("num_samples", "must be left out: the model has no dropout", given["num_samples"])
    numbers = {}
    for name, (number,) in given.items():
        if not (number.isascii() and number.isdecimal() and len(number) < 20):
            refuse(name, "must be an integer", number)
        numbers[name] = int(number)
    return numbers
