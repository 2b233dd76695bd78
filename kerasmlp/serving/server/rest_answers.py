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
