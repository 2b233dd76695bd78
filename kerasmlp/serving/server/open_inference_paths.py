"""The paths of the Open Inference Protocol."""

from collections.abc import Awaitable, Mapping
from typing import Any

from aiohttp import web

from kerasmlp.serving.server.http_service import HttpService
from kerasmlp.serving.server.open_inference import InferForm, encode_infer
from kerasmlp.serving.server.open_inference_metadata import SERVER, metadata_of, outputs_of
from kerasmlp.serving.server.questions import Form, Question
from kerasmlp.serving.server.rest_answers import JsonAnswer, Refusal, expected
from kerasmlp.serving.server.served_version import ServedVersion

_MODEL = r"/v2/models/{model:[^/:]+}{which:(?:/versions/[^/:]+)?}"
_SIZE = "Inference-Header-Content-Length"


class OpenInferencePaths:
    """Answers as KServe's and Triton's clients ask, from the models of a service.

    | path | |
    | --- | --- |
    | `GET /v2` | what this server is |
    | `GET /v2/health/live`, `/v2/health/ready` | whether it runs; whether to send requests |
    | `GET /v2/models/NAME[/versions/N]` | tensors of `serving_default`; `signatures` has all |
    | `GET …/ready` | whether the model is served |
    | `POST …/infer` | see `decode_infer` |

    Args:
        service: Whose models, limits and errors these are.

    Reference: "Open Inference Protocol" of KServe, HTTP/REST.
    """

    def __init__(self, service: HttpService):
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v2", self._server),
            web.get("/v2/health/live", self._live),
            web.get("/v2/health/ready", self._ready),
            web.get(_MODEL, self._model),
            web.get(_MODEL + "/ready", self._model_ready),
            web.post(_MODEL + "/infer", self._infer, expect_handler=expected),
        ]

    async def _server(self, request: web.Request) -> web.Response:
        extensions = ["binary_tensor_data", "signatures"]
        return JsonAnswer({**SERVER, "extensions": extensions})

    async def _live(self, request: web.Request) -> web.Response:
        return JsonAnswer({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        self._service.models.check_ready()
        return JsonAnswer({"ready": True})

    async def _model(self, request: web.Request) -> web.Response:
        model, numbers = self._service.find(request)
        return JsonAnswer(metadata_of(model, numbers[-1]))

    async def _model_ready(self, request: web.Request) -> web.Response:
        self._service.models.check_ready()
        model, _ = self._service.find(request)
        return JsonAnswer({"name": model.name, "ready": True})

    async def _infer(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]

        def question_of(version: ServedVersion) -> Awaitable[Question]:
            def form_of(**how: Any) -> Form:
                own = {"model": name, "outputs": outputs_of(version)}
                return InferForm(**how, **own, json_bytes=_json_bytes(request))

            return self._service.question(request, version, form_of)

        def encoded(question: Question, outputs: Mapping, number: int) -> web.Response:
            about = {"model_name": name, "model_version": str(number)}
            body, json_bytes = encode_infer(outputs, question.wanted, **about)
            if json_bytes is None:
                return web.Response(body=body, content_type="application/json")
            headers = {_SIZE: str(json_bytes)}
            return web.Response(body=body, headers=headers, content_type="application/octet-stream")

        return await self._service.answer(request, question_of, encoded)


def _json_bytes(request: web.Request) -> int | None:
    """Of a body behind whose JSON tensors lie."""
    given = request.headers.getall(_SIZE, [])
    if not given:
        return None
    known = len(given) == 1 and given[0].isascii() and given[0].isdecimal() and len(given[0]) < 19
    if not known or int(given[0]) > request.content_length:
        sentence = f"`{_SIZE}` must be the bytes of the JSON, at most those of the body"
        raise Refusal(400, f"{sentence}. Received: {', '.join(given)[:80]!r}")
    return int(given[0])
