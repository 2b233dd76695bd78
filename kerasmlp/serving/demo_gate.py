"""What passes between a browser and the demo: few addresses, small bodies, nothing from outside."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Any

MAX_UPLOAD_BYTES = 64 << 20
_MAX_BODY_BYTES = 1 << 16
_MAX_PER_MINUTE = 60
_API = "/gradio_api"
_READ = ("/", "/config", "/theme.css", "/favicon.ico", f"{_API}/info", f"{_API}/queue/data")
_READ += (f"{_API}/upload_progress", f"{_API}/app_id", "/manifest.json")
_READ_BELOW = ("/assets/", "/static/", f"{_API}/heartbeat/", f"{_API}/file=")
_WRITE = {
    f"{_API}/upload": MAX_UPLOAD_BYTES + _MAX_BODY_BYTES,
    f"{_API}/queue/join": _MAX_BODY_BYTES,
    f"{_API}/cancel": _MAX_BODY_BYTES,
    f"{_API}/reset": _MAX_BODY_BYTES,
}
_HEADERS = {
    # whatever the page's libraries would like to load from elsewhere, the browser refuses
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; worker-src 'self' blob:; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",  # nor does the browser keep what was uploaded
}


class DemoGate:
    """An ASGI application before another: it refuses what the page does not need.

    Requests for other addresses get 404, those without a length 411, too
    large ones 413, more than 60 uploads or questions a minute 429, and
    questions about a file that was not uploaded here 403, as Gradio would
    fetch such an address.

    Args:
        app: The application behind it.
        folder: Where uploads lie.
    """

    def __init__(self, app: Any, folder: Path):
        self.app = app
        self.folder = folder
        self._times: dict[str, deque[float]] = {path: deque() for path in _WRITE}

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        status, text = self._refusal(scope)
        if not status and scope["path"] == f"{_API}/queue/join":
            body = await _read(receive)
            if not _names_uploads_only(body, self.folder):
                status, text = 403, "The file must be one that was uploaded here."
            receive = _Again(body, receive)
        if status:
            await _answer(send, status, text)
            return

        async def with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                headers = [(k, v) for k, v in message["headers"] if k.decode() not in _HEADERS]
                headers += [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, with_headers)

    def _refusal(self, scope: dict) -> tuple[int, str]:
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD") and (path in _READ or path.startswith(_READ_BELOW)):
            return 0, ""
        if method != "POST" or path not in _WRITE:
            return 404, "There is nothing here."
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "The length must be given."
        if int(length) > _WRITE[path]:
            return 413, f"A file must have at most {MAX_UPLOAD_BYTES >> 20} MB."
        times, now = self._times[path], time.monotonic()
        while times and times[0] < now - 60:
            times.popleft()
        if len(times) >= _MAX_PER_MINUTE:
            return 429, "Too many files in one minute: wait a little."
        times.append(now)
        return 0, ""


class _Again:
    """Gives a body that was read already, then what comes after it."""

    def __init__(self, body: bytes, receive: Any):
        self.messages = [{"type": "http.request", "body": body, "more_body": False}]
        self.receive = receive

    async def __call__(self) -> dict:
        return self.messages.pop() if self.messages else await self.receive()


async def _read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _answer(send: Any, status: int, text: str) -> None:
    body = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _names_uploads_only(body: bytes, folder: Path) -> bool:
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path", str(folder))
            if not isinstance(path, str) or not Path(path).resolve().is_relative_to(folder):
                return False
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return True
