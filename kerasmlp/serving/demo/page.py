"""The demo's page, built with Gradio, and the server that holds it on this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Collection
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasmlp.serving.demo.answers import DemoAnswers
from kerasmlp.serving.demo.gate import MAX_UPLOAD_BYTES, DemoGate, uploaded
from kerasmlp.serving.server.address import LOCAL, in_url, sayable_address
from kerasmlp.serving.server.own_folder import own_folder
from kerasmlp.utils.checks import InputError

if TYPE_CHECKING:
    import gradio

_MAX_WAITING = 8
_UNASKED_S = 300  # an upload about which no question comes
_CSS = """
.answer table { margin: 1em 0; border-collapse: collapse }
.answer caption { text-align: left; font-weight: bold }
.answer th, .answer td { padding: 0.2em 1em 0.2em 0; text-align: left }
.answer [role=alert] { padding: 0.7em 1em; border-left: 4px solid #b91c1c }
"""
_NOTE = "Guesses from a picture: do not decide about people with them. Nothing is kept."


def serve_demo(
    answers: DemoAnswers,
    *,
    host: str,
    port: int,
    also_hosts: Collection[str] = (),
    started: Callable[[str], None],
) -> None:
    """Serves the page until SIGTERM or SIGINT.

    Args:
        answers: To uploaded files.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        also_hosts: Names beside `host` and `localhost`, with a port, by which
            browsers reach it; requests to others are refused, as a foreign
            page may send them.
        started: Called with the URL once it listens.

    Raises:
        InputError: if it cannot listen there.
    """
    with sayable_address(host, port):
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    os.umask(0o077)  # the photos are nobody else's
    with listener, own_folder("kerasmlp-demo-") as folder:
        address, port = listener.getsockname()[:2]
        names = {in_url(host), in_url(address)} | LOCAL
        hosts = {f"{name}:{port}" for name in names}.union(also_hosts, names if port == 80 else ())
        server = _server(answers, folder, hosts)
        started(f"http://{in_url(address)}:{port}")
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _server(answers: DemoAnswers, folder: Path, hosts: Collection[str]) -> Any:
    # read by gradio when it is imported and when components are made
    os.environ |= {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",  # it would keep photos in the browser
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
    }
    import gradio
    import uvicorn
    from fastapi import FastAPI

    @contextlib.asynccontextmanager
    async def sweeping(app: FastAPI) -> AsyncIterator[None]:
        """Removes uploads about which no question came: a connection broke, a page was closed."""

        async def on_and_on() -> None:
            while True:
                await asyncio.sleep(_UNASKED_S / 10)
                await asyncio.to_thread(sweep, folder, _UNASKED_S)

        task = asyncio.create_task(on_and_on())
        yield
        task.cancel()

    app = FastAPI(lifespan=sweeping, openapi_url=None)
    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    gradio.mount_gradio_app(
        app,
        _page(answers, folder),
        path="/",
        theme=gradio.themes.Base(font=fonts[0], font_mono=fonts[1]),
        css=_CSS,
        footer_links=[],
        max_file_size=MAX_UPLOAD_BYTES,
        show_error=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
    )
    config = uvicorn.Config(
        DemoGate(app, folder, hosts),
        log_level="critical",
        ws="none",
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def _page(answers: DemoAnswers, folder: Path) -> gradio.Blocks:
    import gradio

    one_at_a_time = {
        "preprocess": False,  # Gradio would decode the picture, and write it again
        "concurrency_limit": 1,
        "concurrency_id": "answers",
        "trigger_mode": "once",
    }

    def answer_photo(upload: dict | None) -> tuple[None, str]:
        return None, _answered(upload, folder, answers.photo)

    def answer_store(
        upload: dict | None,
        progress: Any = gradio.Progress(),  # noqa: B008
    ) -> tuple[None, str, Any]:
        table: Any = gradio.skip()

        def answer(path: Path) -> str:
            nonlocal table
            html, headers, rows = answers.store(
                path, lambda rows, total: progress.tqdm(rows, total=total, unit="row")
            )
            table = {"headers": headers, "data": rows}
            return html

        return None, _answered(upload, folder, answer), table

    with gradio.Blocks(title="kerasmlp", analytics_enabled=False) as page:
        gradio.Markdown(f"# kerasmlp\n{_NOTE}")
        if answers.finder is not None:
            with gradio.Tab("Photo"):
                photo = gradio.Image(
                    label="A photo with faces",
                    elem_id="photo-input",
                    sources=["upload", "webcam"],
                    type="filepath",
                    buttons=[],
                    height=240,
                )
                seen = gradio.HTML(elem_classes="answer", elem_id="photo-answer")
            photo.input(answer_photo, photo, [photo, seen], api_name="photo", **one_at_a_time)
        with gradio.Tab("Embedding store"):
            store = gradio.File(label="An embedding store (.h5)", height=160, elem_id="store-input")
            summary = gradio.HTML(elem_classes="answer", elem_id="store-answer")
            table = gradio.Dataframe(
                label="Predictions", interactive=False, buttons=[], elem_id="store-table"
            )
        store.upload(
            answer_store, store, [store, summary, table], api_name="store", **one_at_a_time
        )
    page.queue(max_size=_MAX_WAITING, api_open=False)
    return page


def _answered(upload: dict | None, folder: Path, answer: Callable[[Path], str]) -> str:
    """The answer to an uploaded file as HTML, or why there is none; afterwards it is gone."""
    path = uploaded((upload or {}).get("path"), folder) or folder / "nothing"
    try:
        return answer(path)
    except InputError as error:
        text = str(error).replace(str(path), path.name)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        text = f"`{path.name}` cannot be answered: an unexpected error, see the program's output"
    finally:
        shutil.rmtree(folder / path.relative_to(folder).parts[0], ignore_errors=True)
    return f'<p role="alert">{escape(text)}</p>'


def sweep(folder: Path, age_s: float) -> None:
    """Removes what has lain in a folder for longer than `age_s` seconds."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > age_s:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
