import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from aiohttp import web

from kerasmlp.runs.reference import words_of_score
from kerasmlp.serving.server.batching import Batcher
from kerasmlp.serving.server.bodies import Bodies
from kerasmlp.serving.server.limits import Limits
from kerasmlp.serving.server.questions import Form, Question
from kerasmlp.serving.server.rest_answers import JsonAnswer, Refusal, expected
from kerasmlp.serving.server.rest_json import encode
from kerasmlp.serving.server.served_models import ServedModel
from kerasmlp.serving.server.served_version import ServedVersion
from kerasmlp.serving.server.service_metrics import ServiceMetrics
from kerasmlp.utils.checks import InputError

MODEL = r"/v1/models/{model:[^/:]+}{which:(?:/versions/[^/:]+|/labels/[^/:]+)?}"
_PORT = re.compile(r":\d*$")
_HUNG_UP = 499  # as nginx counts them

_MOVED = "%s: the rows asked for have moved, told by %s: what the run promises is not for them"
_GOOD = {"error_code": "OK", "error_message": ""}
_STATUS = {"END": {"error_code": "INVALID_ARGUMENT", "error_message": "see the server's log"}}

_log = logging.getLogger("kerasmlp.serving")


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
        models: By name, as of `load_models`.
        limits: Of requests.

    Attributes:
        limits: Of requests.
        bodies: By which they are read.
        stopping: Whether it says that it does.
        hosts: What it may be called, without ports; None for anything. A page
            may have any name lead to this machine, and then ask from its
            visitors' browsers.
    """

    def __init__(self, models: Mapping[str, ServedModel], limits: Limits):
        self._models = models
        self.limits = limits
        self._metrics = ServiceMetrics()
        self.bodies = Bodies(limits.max_body_bytes, limits.timeout_s)
        self.stopping = False
        self.hosts: Collection[str] | None = None
        self._batcher: Batcher | None = None

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
        self._batcher = Batcher(self.limits, self._metrics.batch_rows.observe)
        await self._batcher.start()
        yield
        await self._batcher.stop()
        await asyncio.to_thread(self.bodies.stop)

    @web.middleware
    async def _errors(self, request: web.Request, handler) -> web.StreamResponse:
        headers, response = {}, None
        request.protocol.begins()
        try:
            self._check_host(request)
            response = await handler(request)
        except InputError as error:
            status, sentence = 400, str(error)
        except Refusal as error:
            status, sentence = error.status, str(error)
            if status == 503:
                headers["Retry-After"] = "1"
        except web.HTTPException as error:
            status, sentence = error.status, _SENTENCES.get(error.status, error.reason)
            headers |= {k: v for k, v in error.headers.items() if k == "Allow"}
        except ConnectionError:  # nobody is there to answer
            raise
        except Exception as error:
            _log.error("a request could not be computed: %s", type(error).__name__)
            status, sentence = 500, "the request could not be computed"
        finally:
            request.protocol.ends()
        if response is None:
            held_s = request.protocol.hold_s() if 400 <= status < 500 else 0.0
            response = JsonAnswer({"error": sentence}, status, headers, held_s=held_s)
        if self.stopping or response.status == 413:
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
        started, model, signature, status = time.perf_counter(), "", "", 200
        self._metrics.active.inc()
        try:
            served, numbers = self.find(request)
            version = served.versions[numbers[-1]]
            model = request.match_info["model"]
            if (verb := request.match_info.get("verb", "predict")) != "predict":
                raise Refusal(400, f"only :predict is answered, not :{verb}")
            await request.protocol.taken()
            question = await question_of(version)
            self._check_passes(question)
            signature = question.signature
            try:
                async with asyncio.timeout(self.limits.timeout_s):
                    outputs = await self._batcher.ask(version, question, request.protocol.client)
            except TimeoutError:
                raise Refusal(504, f"not computed within {self.limits.timeout_s:g} s") from None
            self._metrics.rows.labels(model, signature).inc(question.rows)
            answer = encoded(question, outputs, numbers[-1])
            self._watch(f"{model}/{numbers[-1]}", version, question, outputs)
            return answer
        except (asyncio.CancelledError, ConnectionError):
            status = _HUNG_UP
            raise
        except Exception as error:
            status = getattr(error, "status", 400 if isinstance(error, InputError) else 500)
            raise
        finally:
            self._metrics.active.dec()
            self._metrics.answers.labels(model, signature, str(status)).inc()
            self._metrics.seconds.observe(time.perf_counter() - started)

    def _watch(
        self, name: str, version: ServedVersion, question: Question, outputs: Mapping
    ) -> None:
        if version.watch is None:
            return
        rows = question.inputs["embedding"]
        alarm = version.watch.see(question.signature, rows, outputs)
        if alarm is not None:
            _log.warning(_MOVED, name, words_of_score(alarm))

    async def question(
        self, request: web.Request, version: ServedVersion, form_of: Callable[..., Form]
    ) -> Question:
        """Reads and decodes a body; the form is given the arguments of `Form`."""
        size = self.body_size(request)
        how = {"signatures": version.signatures, "width": version.width}
        how |= {"max_rows": self.limits.max_rows, "max_samples": self.max_samples(version)}
        try:
            return await self.bodies.question(request, size, form_of(**how))
        except TimeoutError:
            raise Refusal(408, "the body did not arrive in time") from None

    def max_samples(self, version: ServedVersion) -> int:
        return min(self.limits.max_samples, version.max_samples)

    def body_size(self, request: web.Request) -> int:
        """Of a body that may be read."""
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            raise Refusal(403, "another site's page must not ask")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refusal(415, "the body must not be compressed")
        if request.content_length is None:
            raise Refusal(411, "the request must have a Content-Length")
        if request.content_length > self.limits.max_body_bytes:
            sentence = f"the body is too large: at most {self.limits.max_body_bytes} bytes"
            raise Refusal(413, sentence)
        return request.content_length

    def _check_passes(self, question: Question) -> None:
        most = self.limits.max_passes
        if "num_samples" in question.inputs and question.passes > most:
            sentence = f"rows times num_samples must be at most {most}"
            raise Refusal(400, f"{sentence}. Received: {question.passes}")

    def _check_host(self, request: web.Request) -> None:
        names = [name.lower() for name in request.headers.getall("Host", [])]
        if self.hosts is None or not names:  # a health check in HTTP/1.0, but no browser
            return
        if len(names) > 1 or not {names[0], _PORT.sub("", names[0])} & set(self.hosts):
            raise Refusal(403, "the server is not known by this name: see --allow-host")

    def find(self, request: web.Request) -> tuple[ServedModel, list[int]]:
        """The model that is asked for, and the numbers of the versions meant, latest last."""
        name, which = request.match_info["model"], request.match_info["which"]
        model = self._models.get(name)
        if model is None:
            raise Refusal(404, f"there is no model {name[:80]!r}")
        if not which:
            return model, sorted(model.versions)
        _, kind, value = which.split("/", 2)
        if kind == "labels":
            number = model.labels.get(value)
        else:
            digits = value.isascii() and value.isdecimal() and len(value) < 19
            number = int(value) if digits else None
        if number not in model.versions:
            raise Refusal(404, f"{name} has no {kind[:-1]} {value[:80]!r} that is served")
        return model, [number]

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

    def check_ready(self) -> None:
        """Raises a refusal while it stops."""
        if self.stopping:
            raise Refusal(503, "stopping")

    async def _ready(self, request: web.Request) -> web.Response:
        self.check_ready()
        return JsonAnswer({"status": "ready"})

    async def _counters(self, request: web.Request) -> web.Response:
        self._metrics.waiting_rows.set(self._batcher.waiting_rows)
        models = dict(self._models)  # in one step: the thread of the watcher changes them
        served = [(k, n, v) for k, m in models.items() for n, v in m.versions.items()]
        self._metrics.watched({(k, n): v.watch for k, n, v in served if v.watch is not None})
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._metrics.text(), headers=headers)


_SENTENCES = {
    404: "there is nothing at this path",
    405: "this path does not take this method",
}
