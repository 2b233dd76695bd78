"""Answers in JSON, and refusals."""

import asyncio
from collections.abc import Mapping

import orjson
from aiohttp import web


class Refusal(Exception):
    """An answer other than 200, with one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Busy(Refusal):
    """Too much waits: by that client, or by all."""

    def __init__(self):
        super().__init__(503, "too many requests at one time, try again")


class JsonAnswer(web.Response):
    """An answer that may be held back for some seconds."""

    def __init__(
        self,
        content: dict,
        status: int = 200,
        headers: Mapping | None = None,
        *,
        held_s: float = 0.0,
    ):
        how = {"status": status, "headers": headers, "content_type": "application/json"}
        super().__init__(body=orjson.dumps(content), **how)
        self._held_s = held_s

    async def prepare(self, request: web.BaseRequest):
        await asyncio.sleep(self._held_s)
        return await super().prepare(request)


async def expected(request: web.Request) -> web.Response | None:
    """Answers `Expect: 100-continue` so that the body comes, and refuses others."""
    if request.headers["Expect"].lower() != "100-continue":
        return JsonAnswer({"error": "only 100-continue can be expected"}, 417)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # no part of the answer
    return None
