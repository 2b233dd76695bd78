"""Answers in JSON, errors among them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson
from aiohttp import web


def json_answer(
    content: dict, *, status: int = 200, headers: Mapping | None = None
) -> web.Response:
    body = orjson.dumps(content)
    return web.Response(
        body=body, status=int(status), headers=headers, content_type="application/json"
    )


class HeldAnswer(web.Response):
    """An answer that is not sent at once.

    Args:
        held_s: Seconds to wait.
        answer: Of `web.Response`.
    """

    def __init__(self, held_s: float, **answer):
        super().__init__(**answer)
        self._held_s = held_s

    async def prepare(self, request: web.BaseRequest):
        await asyncio.sleep(self._held_s)
        return await super().prepare(request)


def error_answer(
    status: int, sentence: str, headers: Mapping | None = None, *, held_s: float = 0.0
) -> web.Response:
    body = orjson.dumps({"error": sentence})
    how = {"status": int(status), "headers": headers, "content_type": "application/json"}
    return HeldAnswer(held_s, body=body, **how)
