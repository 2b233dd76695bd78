"""What passes between a browser and the demo: few addresses, small bodies, nothing from outside."""

import contextlib
import json
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MAX_UPLOAD_BYTES = 64 << 20
_MAX_FOLDER_BYTES = 8 * MAX_UPLOAD_BYTES
_MAX_BODY_BYTES = 1 << 16
_MAX_PER_MINUTE = 60
_API = "/gradio_api"
_READ = ("/", "/config", "/theme.css", "/favicon.ico", f"{_API}/info", f"{_API}/queue/data")
_READ += (f"{_API}/upload_progress", f"{_API}/app_id", "/manifest.json")
_READ_BELOW = ("/assets/", "/static/", f"{_API}/heartbeat/")
_READ_FILE = f"{_API}/file="
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

    Requests for other addresses get 404, those that another site's page may
    have sent 403, those without a length 411, too large ones 413, more than
    60 uploads or questions a minute 429, and uploads for which there is no
    room 507. A file that was not uploaded here is neither given nor asked
    about: 403, as Gradio would fetch it from wherever its name says.

    Args:
        app: The application behind it.
        folder: Where uploads lie.
        hosts: What a browser may call this server, such as `"127.0.0.1:7860"`.
    """

    def __init__(self, app: Any, folder: Path, hosts: Collection[str]):
        self.app = app
        self.folder = folder
        self.hosts = frozenset(host.lower() for host in hosts)
        self._times: dict[str, deque[float]] = {path: deque() for path in _WRITE}
        self._arriving_bytes = 0

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        status, text = self._refusal(scope)
        if status:
            await _answer(send, status, text)
            return
        bytes_ = int(_header(scope, b"content-length")) if scope["method"] == "POST" else 0
        self._arriving_bytes += bytes_
        try:
            await self._pass_on(scope, _up_to(bytes_, receive), send)
        finally:
            self._arriving_bytes -= bytes_

    async def _pass_on(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["path"] == f"{_API}/queue/join":
            body = await _read(receive)
            if not _names_uploads_only(body, self.folder):
                await _answer(send, 403, "The file must be one that was uploaded here.")
                return
            receive = _again(body, receive)

        async def with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                headers = [(k, v) for k, v in message["headers"] if k.decode() not in _HEADERS]
                headers += [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, with_headers)

    def _refusal(self, scope: dict) -> tuple[int, str]:
        path, method = scope["path"], scope["method"]
        if _header(scope, b"host").lower() not in self.hosts:
            return 403, "The server is not known by this name: see --allow-host."
        if method in ("GET", "HEAD"):
            if path.startswith(_READ_FILE):
                known = uploaded(path.removeprefix(_READ_FILE), self.folder)
                return (0, "") if known else (403, "The file must be one that was uploaded here.")
            if path in _READ or path.startswith(_READ_BELOW):
                return 0, ""
        if method != "POST" or path not in _WRITE:
            return 404, "There is nothing here."
        origin = _header(scope, b"origin").lower()
        foreign = origin and urlsplit(origin).netloc not in self.hosts
        if foreign or _header(scope, b"sec-fetch-site") == "cross-site":
            return 403, "The request must come from this server's own page."
        length = _header(scope, b"content-length")
        if not length.isdecimal() or _header(scope, b"transfer-encoding"):
            return 411, "The length must be given."
        if len(length) > 15 or int(length) > _WRITE[path]:
            return 413, f"A file must have at most {MAX_UPLOAD_BYTES >> 20} MB."
        times, now = self._times[path], time.monotonic()
        while times and times[0] < now - 60:
            times.popleft()
        if len(times) >= _MAX_PER_MINUTE:
            return 429, "Too many files in one minute: wait a little."
        times.append(now)
        taken = self._arriving_bytes + _bytes_in(self.folder)
        if path == f"{_API}/upload" and taken + int(length) > _MAX_FOLDER_BYTES:
            return 507, "Too many files are waiting: try again in some minutes."
        return 0, ""


def uploaded(path: Any, folder: Path) -> Path | None:
    """The file of an upload, resolved; None for what lies elsewhere, or goes through `..`."""
    try:
        if ".." in Path(path).parts:
            return None
        resolved = Path(path).resolve()
    except (TypeError, ValueError, OSError, RuntimeError):  # no text, zero bytes, links in a ring
        return None
    return resolved if folder in resolved.parents else None


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it was answered in this moment
            total += path.lstat().st_size
    return total


def _header(scope: dict, name: bytes) -> str:
    """Of a request; empty without one, as one that contradicts another is of no use."""
    values = {value for key, value in scope["headers"] if key == name}
    return values.pop().decode("latin-1") if len(values) == 1 else ""


def _up_to(bytes_: int, receive: Any) -> Any:
    """Gives a body until it is longer than was said; for what is behind, the client then left."""
    left = bytes_

    async def give() -> dict:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        return message if left >= 0 else {"type": "http.disconnect"}

    return give


def _again(body: bytes, receive: Any) -> Any:
    """Gives a body that was read already, then what comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> dict:
        return messages.pop() if messages else await receive()

    return give


async def _read(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


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
            if "path" in value and not uploaded(value["path"], folder):
                return False
            if value.get("is_stream", False) is not False:  # its path would not be looked at
                return False
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return True
