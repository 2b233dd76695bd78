"""TensorFlow Serving's REST dialect over HTTP, for those who do not run TensorFlow Serving."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus

import orjson
from aiohttp import web

from kerasmlp.checks import InputError
from kerasmlp.serving.batching import Batcher
from kerasmlp.serving.limits import Limits
from kerasmlp.serving.rest_json import Question, decode, encode
from kerasmlp.serving.served_models import ServedModel
from kerasmlp.serving.served_version import ServedVersion
from kerasmlp.serving.service_metrics import ServiceMetrics

_MODEL = r"/v1/models/{model:[^/:]+}{which:(?:/versions/[^/:]+|/labels/[^/:]+)?}"
_BODIES = 8  # bodies of the largest size that may be in memory at one time
_LONG_BODY = 1 << 20  # bytes; to decode more would hold up the others
_PASSES_PER_S = 1 << 17  # more wait in vain: they would not be computed within the time limit
_HUNG_UP = 499  # as nginx counts them

_log = logging.getLogger("kerasmlp.serving")


class Refusal(Exception):
    """An answer other than 200, with one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str):
        super().__init__(sentence)
        self.status = status


class HttpService:
    """Answers what TensorFlow Serving answers, from the same models.

    | path | |
    | --- | --- |
    | `POST /v1/models/NAME[/versions/N or /labels/LABEL]:predict` | see `rest_json` |
    | `GET /v1/models/NAME[/versions/N or /labels/LABEL]` | which versions are available |
    | `GET …/metadata` | signatures |
    | `GET /healthz`, `/readyz` | whether it runs; whether to send requests |
    | `GET /metrics` | for Prometheus |

    Errors are `{"error": "one sentence"}`: 400 what cannot be understood, 403
    sent by another site's page, 404 unknown model or version, 405 wrong
    method, 408 a body that does not arrive, 411 without a length, 413 too
    large, 415 compressed, 503 too many requests at one time (with
    `Retry-After`), 504 not computed in time. Who hangs up is not computed.

    Args:
        models: By name, as of `load_models`.
        limits: Of requests.
    """

    def __init__(self, models: Mapping[str, ServedModel], limits: Limits):
        self._models = models
        self._limits = limits
        self._metrics = ServiceMetrics()
        self._active = 0
        self._body_bytes = 0
        self.stopping = False
        self._batcher: Batcher | None = None

    def app(self) -> web.Application:
        """A new application; it computes from its start to its clean-up."""
        app = web.Application(
            middlewares=[self._errors], client_max_size=self._limits.max_body_bytes
        )
        app.add_routes(
            [
                web.post(_MODEL + ":{verb:[a-z]+}", self._predict),
                web.get(_MODEL, self._status),
                web.get(_MODEL + "/metadata", self._metadata),
                web.get("/healthz", self._health),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._counters),
            ]
        )
        app.cleanup_ctx.append(self._computing)
        return app

    async def _computing(self, app: web.Application):
        self._batcher = Batcher(
            max_batch_rows=self._limits.max_batch_rows,
            max_passes=self._limits.max_passes,
            seen=self._metrics.batch_rows.observe,
        )
        await self._batcher.start()
        yield
        await self._batcher.stop()

    @web.middleware
    async def _errors(self, request: web.Request, handler) -> web.StreamResponse:
        headers = {}
        try:
            response = await handler(request)
        except InputError as error:
            status, sentence = HTTPStatus.BAD_REQUEST, str(error)
        except Refusal as error:
            status, sentence = error.status, str(error)
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                headers["Retry-After"] = "1"
        except web.HTTPException as error:
            status, sentence = HTTPStatus(error.status), _SENTENCES.get(error.status, error.reason)
            if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                sentence += f": at most {self._limits.max_body_bytes} bytes"
            headers |= {k: v for k, v in error.headers.items() if k == "Allow"}
        except ConnectionError:  # nobody is there to answer
            raise
        except Exception as error:
            _log.error("%s %s: %s", request.method, request.path, type(error).__name__)
            status, sentence = HTTPStatus.INTERNAL_SERVER_ERROR, "the request could not be computed"
        else:
            status = None
        if status is not None:
            response = _json({"error": sentence}, status=status, headers=headers)
        if self.stopping or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            response.force_close()
        return response

    async def _predict(self, request: web.Request) -> web.Response:
        started, model, signature, status = time.perf_counter(), "", "", HTTPStatus.OK
        self._active += 1
        self._metrics.active.set(self._active)
        try:
            if self._active > self._limits.max_requests:
                raise _busy()
            version = self._version(request)
            model = request.match_info["model"]
            if request.match_info["verb"] != "predict":
                verb = request.match_info["verb"]
                raise Refusal(HTTPStatus.BAD_REQUEST, f"only :predict is answered, not :{verb}")
            question = await self._question(request, version)
            signature = question.signature
            waiting = self._batcher.waiting_passes
            if waiting and waiting + question.passes > _PASSES_PER_S * self._limits.timeout_s:
                raise _busy()
            try:
                async with asyncio.timeout(self._limits.timeout_s):
                    outputs = await self._batcher.ask(version, question)
            except TimeoutError:
                sentence = f"not computed within {self._limits.timeout_s:g} s"
                raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, sentence) from None
            self._metrics.rows.labels(model, signature).inc(question.rows)
            body = encode(outputs, by_row=question.by_row)
            return web.Response(body=body, content_type="application/json")
        except (asyncio.CancelledError, ConnectionError):
            status = _HUNG_UP
            raise
        except Exception as error:
            status = getattr(error, "status", 400 if isinstance(error, InputError) else 500)
            raise
        finally:
            self._active -= 1
            self._metrics.active.set(self._active)
            self._metrics.answers.labels(model, signature, str(int(status))).inc()
            self._metrics.seconds.observe(time.perf_counter() - started)

    async def _question(self, request: web.Request, version: ServedVersion) -> Question:
        limits = self._limits
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            raise Refusal(HTTPStatus.FORBIDDEN, "another site's page must not ask")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed")
        size = request.content_length
        if size is None:
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "the request must have a Content-Length")
        if size > limits.max_body_bytes:
            raise web.HTTPRequestEntityTooLarge(limits.max_body_bytes, size)
        parts = []
        try:
            async with asyncio.timeout(limits.timeout_s):
                async for part in request.content.iter_any():  # `read` would keep it for long
                    parts.append(part)
                    self._body_bytes += len(part)
                    if self._body_bytes > _BODIES * limits.max_body_bytes:
                        raise _busy()
            max_samples = min(limits.max_samples, version.max_samples)
            how = {"max_rows": limits.max_rows, "max_samples": max_samples}
            if size > _LONG_BODY:
                question = await asyncio.to_thread(decode, b"".join(parts), version, **how)
            else:
                question = decode(b"".join(parts), version, **how)
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time") from None
        finally:
            self._body_bytes -= sum(map(len, parts))
        if "num_samples" in question.inputs and question.passes > limits.max_passes:
            sentence = f"rows times num_samples must be at most {limits.max_passes}"
            sentence += f". Received: {question.passes}"
            raise Refusal(HTTPStatus.BAD_REQUEST, sentence)
        return question

    def _model(self, request: web.Request) -> tuple[ServedModel, list[int]]:
        """The model that is asked for, and the numbers of the versions meant, latest last."""
        name, which = request.match_info["model"], request.match_info["which"]
        model = self._models.get(name)
        if model is None:
            raise Refusal(HTTPStatus.NOT_FOUND, f"there is no model {name[:80]!r}")
        if not which:
            return model, sorted(model.versions)
        _, kind, value = which.split("/", 2)
        if kind == "labels":
            number = model.labels.get(value)
        else:
            digits = value.isascii() and value.isdecimal() and len(value) < 19
            number = int(value) if digits else None
        if number not in model.versions:
            sentence = f"{name} has no {kind[:-1]} {value[:80]!r} that is served"
            raise Refusal(HTTPStatus.NOT_FOUND, sentence)
        return model, [number]

    def _version(self, request: web.Request) -> ServedVersion:
        model, numbers = self._model(request)
        return model.versions[numbers[-1]]

    async def _status(self, request: web.Request) -> web.Response:
        _, numbers = self._model(request)
        good = {"error_code": "OK", "error_message": ""}
        states = [
            {"version": str(n), "state": "AVAILABLE", "status": good} for n in reversed(numbers)
        ]
        return _json({"model_version_status": states})

    async def _metadata(self, request: web.Request) -> web.Response:
        model, numbers = self._model(request)
        spec = {"name": model.name, "signature_name": "", "version": str(numbers[-1])}
        definitions = model.versions[numbers[-1]].signature_definitions
        signatures = {"signature_def": {"signature_def": definitions}}
        return _json({"model_spec": spec, "metadata": signatures})

    async def _health(self, request: web.Request) -> web.Response:
        return _json({"status": "running"})

    async def _ready(self, request: web.Request) -> web.Response:
        if self.stopping:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "stopping")
        return _json({"status": "ready"})

    async def _counters(self, request: web.Request) -> web.Response:
        self._metrics.waiting_rows.set(self._batcher.waiting_rows)
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._metrics.text(), headers=headers)


_SENTENCES = {
    404: "there is nothing at this path",
    405: "this path does not take this method",
    413: "the body is too large",
}


def _busy() -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at one time, try again")


def _json(content: dict, *, status: int = 200, headers: Mapping | None = None) -> web.Response:
    body = orjson.dumps(content)
    return web.Response(
        body=body, status=int(status), headers=headers, content_type="application/json"
    )
