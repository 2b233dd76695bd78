import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from kerasmlp.runs.reference import words_of_score
from kerasmlp.serving.server.batching import Batcher
from kerasmlp.serving.server.bodies import Bodies
from kerasmlp.serving.server.fair_queue import Client
from kerasmlp.serving.server.limits import Limits
from kerasmlp.serving.server.questions import Question
from kerasmlp.serving.server.rest_answers import Refusal
from kerasmlp.serving.server.served_models import ServedModel
from kerasmlp.serving.server.served_version import ServedVersion
from kerasmlp.serving.server.service_metrics import ServiceMetrics
from kerasmlp.utils.checks import InputError

T = TypeVar("T")
_HUNG_UP = 499  # as nginx counts them
_MOVED = "%s: the rows asked for have moved, told by %s: what the run promises is not for them"

_log = logging.getLogger("kerasmlp.serving")


class ModelService:
    """Answers questions about models, by whatever wire and in whatever dialect they came.

    What is refused has the status of HTTP, which `/metrics` counts.

    Args:
        models: By name, as of `load_models`.
        limits: Of requests.

    Attributes:
        limits: Of requests.
        bodies: By which requests are read.
        stopping: Whether it says that it does.
    """

    def __init__(self, models: Mapping[str, ServedModel], limits: Limits):
        self._models = models
        self.limits = limits
        self._metrics = ServiceMetrics()
        self.bodies = Bodies(limits.max_body_bytes, limits.timeout_s)
        self.stopping = False
        self._batcher: Batcher | None = None

    async def start(self) -> None:
        self._batcher = Batcher(self.limits, self._metrics.batch_rows.observe)
        await self._batcher.start()

    async def stop(self) -> None:
        """Answers whatever came before."""
        await self._batcher.stop()
        await asyncio.to_thread(self.bodies.stop)

    def check_ready(self) -> None:
        """Raises a refusal while it stops."""
        if self.stopping:
            raise Refusal(503, "stopping")

    def find(self, name: str, kind: str, value: str) -> tuple[ServedModel, list[int]]:
        """The model that is asked for, and the numbers of the versions meant, latest last.

        Args:
            name: Of the model.
            kind: `versions` or `labels`.
            value: The number or the label; empty for every version.

        Raises:
            Refusal: if none is served.
        """
        model = self._models.get(name)
        if model is None:
            raise Refusal(404, f"there is no model {name[:80]!r}")
        if not value:
            return model, sorted(model.versions)
        if kind == "labels":
            number = model.labels.get(value)
        else:
            digits = value.isascii() and value.isdecimal() and len(value) < 19
            number = int(value) if digits else None
        if number not in model.versions:
            raise Refusal(404, f"{name} has no {kind[:-1]} {value[:80]!r} that is served")
        return model, [number]

    def form_of(self, version: ServedVersion) -> dict[str, Any]:
        """The arguments of a `Form`."""
        how = {"signatures": version.signatures, "width": version.width}
        return how | {"max_rows": self.limits.max_rows, "max_samples": self.max_samples(version)}

    def max_samples(self, version: ServedVersion) -> int:
        return min(self.limits.max_samples, version.max_samples)

    async def answer(
        self,
        asked: Callable[[], Awaitable[tuple[str, str, str]]],
        client: Client,
        question_of: Callable[[ServedVersion], Awaitable[Question]],
        encoded: Callable[[Question, Mapping, int], T],
    ) -> T:
        """Computes and counts one answer.

        Args:
            asked: Reads what is asked for, as `find` takes it.
            client: To take turns by.
            question_of: Reads the question, given the version that is asked.
            encoded: Writes the answer, of a question, its outputs and the version's number.

        Raises:
            InputError: if it cannot be understood.
            Refusal: if it is not answered.
        """
        started, model, signature, status = time.perf_counter(), "", "", 200
        self._metrics.active.inc()
        try:
            served, numbers = self.find(*await asked())
            version, model = served.versions[numbers[-1]], served.name
            question = await question_of(version)
            self._check_passes(question)
            signature = question.signature
            try:
                async with asyncio.timeout(self.limits.timeout_s):
                    outputs = await self._batcher.ask(version, question, client)
            except TimeoutError:
                raise Refusal(504, f"not computed within {self.limits.timeout_s:g} s") from None
            self._metrics.rows.labels(model, signature).inc(question.rows)
            answer = encoded(question, outputs, numbers[-1])
            _watch(f"{model}/{numbers[-1]}", version, question, outputs)
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

    def _check_passes(self, question: Question) -> None:
        most = self.limits.max_passes
        if "num_samples" in question.inputs and question.passes > most:
            sentence = f"rows times num_samples must be at most {most}"
            raise Refusal(400, f"{sentence}. Received: {question.passes}")

    def counters(self) -> bytes:
        """For Prometheus."""
        self._metrics.waiting_rows.set(self._batcher.waiting_rows)
        models = dict(self._models)  # in one step: the thread of the watcher changes them
        served = [(k, n, v) for k, m in models.items() for n, v in m.versions.items()]
        self._metrics.watched({(k, n): v.watch for k, n, v in served if v.watch is not None})
        return self._metrics.text()


def sentence_of(error: Exception) -> tuple[int, str]:
    """The status and the one sentence with which a request is refused, or has failed."""
    if isinstance(error, InputError):
        return 400, str(error)
    if isinstance(error, Refusal):
        return error.status, str(error)
    _log.error("a request could not be computed: %s", type(error).__name__)
    return 500, "the request could not be computed"


def _watch(name: str, version: ServedVersion, question: Question, outputs: Mapping) -> None:
    if version.watch is None:
        return
    alarm = version.watch.see(question.signature, question.inputs["embedding"], outputs)
    if alarm is not None:
        _log.warning(_MOVED, name, words_of_score(alarm))
