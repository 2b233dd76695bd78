import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from aiohttp import web

from kerasmlp.serving.server.model_service import ModelService, sentence_of
from kerasmlp.serving.server.questions import Form, Question
from kerasmlp.serving.server.rest_answers import JsonAnswer, Refusal, expected
from kerasmlp.serving.server.rest_json import encode
from kerasmlp.serving.server.served_models import ServedModel
from kerasmlp.serving.server.served_version import ServedVersion

MODEL = r"/v1/models/{model:[^/:]+}{which:(?:/versions/[^/:]+|/labels/[^/:]+)?}"
_PORT = re.compile(r":\d*$")
_GOOD = {"error_code": "OK", "error_message": ""}
_STATUS = {"END": {"error_code": "INVALID_ARGUMENT", "error_message": "see the server's log"}}


class HttpService:
    """Answers over HTTP what TensorFlow Serving answers over REST, from the same models.

    | path | |
    | --- | --- |
    | `POST /v1/models/NAME[/versions/N or /labels/LABEL]:predict` | see `rest_json` |
    | `GET /v1/models/NAME[/versions/N or /labels/LABEL]` | which versions are available |
    | `GET …/metadata` | signatures |
    | `GET /healthz`, `/readyz` | whether it runs; whether to send requests |
    | `GET /metrics` | for Prometheus |

    Errors are `{"error": "one sentence"}`: 400 what cannot be understood, 403
    sent by another site's page, or under a name that is none of `hosts`, 404
    unknown model or version, 405 wrong method, 408 a body that does not
    arrive, 411 without a length, 413 too large, 415 compressed, 503 too many
    requests at one time (with `Retry-After`), 504 not computed in time. Who
    hangs up is not computed.

    Args:
        models: Which it asks.

    Attributes:
        models: Which it asks.
        hosts: What it may be called, without ports; None for anything. A page
            may have any name lead to this machine, and then ask from its
            visitors' browsers.
    """

    def __init__(self, models: ModelService):
        self.models = models
        self.hosts: Collection[str] | None = None

    def app(self, more: Iterable[web.RouteDef] = ()) -> web.Application:
        """A new application; it computes from its start to its clean-up.

        Args:
            more: Further paths, which are looked at first.
        """
        app = web.Application(middlewares=[self._errors])
        app.add_routes(
            [
                *more,
                web.post(MODEL + ":{verb:[a-z]+}", self._predict, expect_handler=expected),
                web.get(MODEL, self._status),
                web.get(MODEL + "/metadata", self._metadata),
                web.get("/healthz", self._health),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._counters),
            ]
        )
        app.cleanup_ctx.append(self._computing)
        return app

    async def _computing(self, app: web.Application):
        await self.models.start()
        yield
        await self.models.stop()

    @web.middleware
    async def _errors(self, request: web.Request, handler) -> web.StreamResponse:
        headers, response = {}, None
        request.protocol.begins()
        try:
            self._check_host(request)
            response = await handler(request)
        except web.HTTPException as error:
            status, sentence = error.status, _SENTENCES.get(error.status, error.reason)
            headers |= {k: v for k, v in error.headers.items() if k == "Allow"}
        except ConnectionError:  # nobody is there to answer
            raise
        except Exception as error:
            status, sentence = sentence_of(error)
            if status == 503:
                headers["Retry-After"] = "1"
        finally:
            request.protocol.ends()
        if response is None:
            held_s = request.protocol.hold_s() if 400 <= status < 500 else 0.0
            response = JsonAnswer({"error": sentence}, status, headers, held_s=held_s)
        if self.models.stopping or response.status == 413:
            response.force_close()
        return response

    async def _predict(self, request: web.Request) -> web.Response:
        def encoded(question: Question, outputs: Mapping, number: int) -> web.Response:
            body = encode(outputs, by_row=question.wanted["by_row"])
            return web.Response(body=body, content_type="application/json")

        def question_of(version: ServedVersion) -> Awaitable[Question]:
            return self.question(request, version, Form)

        return await self.answer(request, question_of, encoded)

    async def answer(
        self,
        request: web.Request,
        question_of: Callable[[ServedVersion], Awaitable[Question]],
        encoded: Callable[[Question, Mapping, int], web.Response],
    ) -> web.Response:
        """Answers what a body asks, in any dialect.

        Args:
            request: Whose path names the model.
            question_of: Reads the body, given the version that is asked.
            encoded: Writes the answer, of a question, its outputs and the version's number.
        """

        async def asked() -> tuple[str, str, str]:
            return asked_of(request)

        async def question(version: ServedVersion) -> Question:
            if (verb := request.match_info.get("verb", "predict")) != "predict":
                why = "; :embed needs `serve --model-dir`" if verb == "embed" else ""
                raise Refusal(400, f"only :predict is answered, not :{verb}{why}")
            await request.protocol.taken()
            return await question_of(version)

        client = request.protocol.client
        return await self.models.answer(asked, client, question, encoded)

    async def question(
        self, request: web.Request, version: ServedVersion, form_of: Callable[..., Form]
    ) -> Question:
        """Reads and decodes a body; the form is given the arguments of `Form`."""
        size = self.body_size(request)
        form = form_of(**self.models.form_of(version))
        try:
            return await self.models.bodies.question(request, size, form)
        except TimeoutError:
            raise Refusal(408, "the body did not arrive in time") from None

    def body_size(self, request: web.Request) -> int:
        """Of a body that may be read."""
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            raise Refusal(403, "another site's page must not ask")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refusal(415, "the body must not be compressed")
        if request.content_length is None:
            raise Refusal(411, "the request must have a Content-Length")
        most = self.models.limits.max_body_bytes
        if request.content_length > most:
            raise Refusal(413, f"the body is too large: at most {most} bytes")
        return request.content_length

    def _check_host(self, request: web.Request) -> None:
        names = [name.lower() for name in request.headers.getall("Host", [])]
        if self.hosts is None or not names:  # a health check in HTTP/1.0, but no browser
            return
        if len(names) > 1 or not {names[0], _PORT.sub("", names[0])} & set(self.hosts):
            raise Refusal(403, "the server is not known by this name: see --allow-host")

    def find(self, request: web.Request) -> tuple[ServedModel, list[int]]:
        """As `ModelService.find`, of what the path names."""
        return self.models.find(*asked_of(request))

    async def _status(self, request: web.Request) -> web.Response:
        model, numbers = self.find(request)
        states = dict.fromkeys(numbers, "AVAILABLE")
        if not request.match_info["which"]:
            states |= model.others
        states = [
            {"version": str(n), "state": states[n], "status": _STATUS.get(states[n], _GOOD)}
            for n in sorted(states, reverse=True)
        ]
        return JsonAnswer({"model_version_status": states})

    async def _metadata(self, request: web.Request) -> web.Response:
        model, numbers = self.find(request)
        spec = {"name": model.name, "signature_name": "", "version": str(numbers[-1])}
        definitions = model.versions[numbers[-1]].signature_definitions
        signatures = {"signature_def": {"signature_def": definitions}}
        return JsonAnswer({"model_spec": spec, "metadata": signatures})

    async def _health(self, request: web.Request) -> web.Response:
        return JsonAnswer({"status": "running"})

    async def _ready(self, request: web.Request) -> web.Response:
        self.models.check_ready()
        return JsonAnswer({"status": "ready"})

    async def _counters(self, request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self.models.counters(), headers=headers)


def asked_of(request: web.Request) -> tuple[str, str, str]:
    """What a path names, as `ModelService.find` takes it."""
    _, kind, value = (request.match_info["which"] or "//").split("/", 2)
    return request.match_info["model"], kind, value


_SENTENCES = {
    404: "there is nothing at this path",
    405: "this path does not take this method",
}
