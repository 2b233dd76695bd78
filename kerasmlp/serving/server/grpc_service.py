"""The Open Inference Protocol over gRPC."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else each odd connection has a line
import grpc

from kerasmlp.serving.server.address import in_url, sayable_address, sockets_at
from kerasmlp.serving.server.connections import KEPT_S, client_address
from kerasmlp.serving.server.fair_queue import Client
from kerasmlp.serving.server.grpc_messages import SERVICE, messages, parse, parts_of
from kerasmlp.serving.server.grpc_tensors import MessageForm, encode_message
from kerasmlp.serving.server.model_service import ModelService, sentence_of
from kerasmlp.serving.server.open_inference_metadata import SERVER, metadata_of, outputs_of
from kerasmlp.serving.server.places import Places, Shares
from kerasmlp.serving.server.questions import Question
from kerasmlp.serving.server.rest_answers import Refusal
from kerasmlp.serving.server.served_version import ServedVersion
from kerasmlp.utils.checks import reject

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.RESOURCE_EXHAUSTED,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_PLAIN_BYTES = 4096  # of a message that asks for no answer of a model
_OLD_MS = 600_000  # a connection: a call whose answer is not taken cannot be ended otherwise
_ALIVE_MS = 10_000  # from one look whether a client is there to the next, and for its answer


class GrpcService:
    """Answers `inference.GRPCInferenceService` from the models that HTTP has, by the same rules.

    | method | |
    | --- | --- |
    | `ServerLive`, `ServerReady`, `ModelReady` | whether to send requests |
    | `ServerMetadata`, `ModelMetadata` | what this is; the tensors of `serving_default` |
    | `ModelInfer` | see `decode_message` |

    Others are `UNIMPLEMENTED`. A refusal has the sentence that HTTP has: `INVALID_ARGUMENT` what
    cannot be understood, `NOT_FOUND` an unknown model or version, `RESOURCE_EXHAUSTED` too large
    or too many at one time, `DEADLINE_EXCEEDED` what does not arrive or is not computed in time.

    Args:
        models: Which it asks.

    Reference: "Open Inference Protocol" of KServe, gRPC.
    """

    def __init__(self, models: ModelService):
        self._models = models
        most = models.limits.max_requests
        self._places, self._untaken = Places(most), Shares(most)

    def handlers(self) -> grpc.GenericRpcHandler:
        answers = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._model,
        }
        handles = {name: partial(self._plain, name, answer) for name, answer in answers.items()}
        handles["ModelInfer"] = self._infer
        # As streams, of one message: so it is read and written here, within limits.
        streams = {
            name: grpc.stream_stream_rpc_method_handler(partial(self._answered, handle))
            for name, handle in handles.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, streams)

    async def _answered(
        self,
        handle: Callable[[Client, grpc.aio.ServicerContext], Awaitable[bytes]],
        requests: Any,
        context: grpc.aio.ServicerContext,
    ) -> None:
        client = _client(context)
        with contextlib.ExitStack() as until_taken:
            try:
                answer = await handle(client, context)
                until_taken.enter_context(self._untaken.share(client[0]))
            except Exception as error:
                status, sentence = sentence_of(error)
                await context.abort(_CODES.get(status, grpc.StatusCode.INTERNAL), sentence)
            try:
                await context.write(answer)
            except grpc.aio.BaseError:  # who was to take it is gone: gRPC would log a traceback
                raise asyncio.CancelledError from None

    async def _read(self, client: Client, context: grpc.aio.ServicerContext) -> bytes:
        limit = self._models.limits.timeout_s
        self._untaken.check(client[0])
        try:
            async with self._places.place(client[0]), asyncio.timeout(limit):
                message = await context.read()
        except TimeoutError:
            raise Refusal(408, "the message did not arrive in time") from None
        if message is grpc.aio.EOF:
            raise Refusal(400, "the request must have a message")
        return message

    async def _plain(
        self,
        method: str,
        answer: Callable[[Any], dict],
        client: Client,
        context: grpc.aio.ServicerContext,
    ) -> bytes:
        message = await self._read(client, context)
        if len(message) > _PLAIN_BYTES:
            raise Refusal(413, f"the message is too large: at most {_PLAIN_BYTES} bytes")
        values = answer(parse(f"{method}Request", message))
        return messages()[f"{method}Response"](**values).SerializeToString()

    def _live(self, request: Any) -> dict:
        return {"live": True}

    def _ready(self, request: Any) -> dict:
        return {"ready": not self._models.stopping}

    def _model_ready(self, request: Any) -> dict:
        self._models.find(request.name, "versions", request.version)
        return {"ready": not self._models.stopping}

    def _server(self, request: Any) -> dict:
        return SERVER

    def _model(self, request: Any) -> dict:
        model, numbers = self._models.find(request.name, "versions", request.version)
        metadata = metadata_of(model, numbers[-1])
        return {key: value for key, value in metadata.items() if key != "signatures"}

    async def _infer(self, client: Client, context: grpc.aio.ServicerContext) -> bytes:
        name, message_bytes, body = "", 0, b""

        async def asked() -> tuple[str, str, str]:
            nonlocal name, message_bytes, body
            body = await self._read(client, context)
            name, number, message_bytes = parts_of(body)
            return name, "versions", number

        async def question_of(version: ServedVersion) -> Question:
            nonlocal body
            own = {"model": name, "outputs": outputs_of(version), "json_bytes": message_bytes}
            form = MessageForm(**self._models.form_of(version), **own)
            message, body = body, b""  # it is not kept while it is computed
            async with self._places.place(client[0], comes=False) as place:
                return await self._models.bodies.decoded(client, message, form, place.begin)

        def encoded(question: Question, outputs: Mapping, number: int) -> bytes:
            self._untaken.check(client[0])  # here too: what is refused later counts as answered
            about = {"model_name": name, "model_version": str(number)}
            return encode_message(outputs, question.wanted, **about)

        return await self._models.answer(asked, client, question_of, encoded)


def _client(context: grpc.aio.ServicerContext) -> Client:
    """To take turns by, as over HTTP."""
    peer = unquote(context.peer())
    address = peer.partition(":")[2].rpartition(":")[0].strip("[]")
    return client_address((address,)), peer


@contextlib.asynccontextmanager
async def grpc_listening(
    models: ModelService, host: str, port: int, max_connections: int
) -> AsyncIterator[str]:
    """Yields where the service listens, as HOST:PORT; then answers what it took.

    Args:
        models: Which it asks.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        max_connections: That are open at one time.

    Raises:
        InputError: if it cannot listen there.
    """
    limits = models.limits
    with sayable_address(host, port, "grpc_port"):
        # gRPC does not say what is wrong with an address.
        places = []
        for listening in sockets_at(host, port):
            address, free, *_ = listening.getsockname()
            places.append(f"{in_url(address)}:{free}")
            listening.close()
    options = {
        "grpc.so_reuseport": 0,  # else two servers share a port
        "grpc.max_receive_message_length": limits.max_body_bytes,
        "grpc.max_concurrent_streams": limits.max_requests,
        "grpc.max_allowed_incoming_connections": max(max_connections // len(places), 1),
        "grpc.max_connection_idle_ms": int(KEPT_S * 1000),
        "grpc.max_connection_age_ms": _OLD_MS,
        "grpc.max_connection_age_grace_ms": int(4 * limits.timeout_s * 1000),
        "grpc.compression_enabled_algorithms_bitset": 1,  # none: a small message may hold much
        "grpc.server_handshake_timeout_ms": _ALIVE_MS,
        "grpc.keepalive_time_ms": _ALIVE_MS,
        "grpc.keepalive_timeout_ms": _ALIVE_MS,
    }
    server = grpc.aio.server(options=[*options.items()])
    server.add_generic_rpc_handlers([GrpcService(models).handlers()])
    try:
        for place in places:
            server.add_insecure_port(place)
    except RuntimeError:  # taken meanwhile
        reject("grpc_port", f"must be free on {host}", port)
    await server.start()
    try:
        yield places[0]
    finally:
        await server.stop(2 * limits.timeout_s)
