"""Answers in JSON, errors among them."""

from __future__ import annotations

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


def error_answer(status: int, sentence: str, headers: Mapping | None = None) -> web.Response:
    return json_answer({"error": sentence}, status=status, headers=headers)
