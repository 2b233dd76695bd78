"""A client of TensorFlow Serving's REST port, and of `serve`."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import numpy as np

from kerasmlp.checks import check_int, check_positive, reject
from kerasmlp.serving.client import Client, ServerError

_AGAIN = (429, 502, 503)


class RestClient(Client):
    """Asks one model over HTTP; needs urllib3 (extra `serve`).

    A request without an answer, or one that the server is too busy for, is
    sent again after a while: to ask twice changes nothing. It may be shared
    by threads.

    Args:
        url: Of the server, such as `"http://127.0.0.1:8501"`.
        model: Its name.
        version: Its number; None asks the latest.
        timeout_s: Until one try is given up, in seconds.
        retries: Further tries.

    Raises:
        InputError: if an argument is no such thing, or urllib3 is missing.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
    ):
        super().__init__()
        if not importlib.util.find_spec("urllib3"):
            reject("urllib3", "must be installed for the REST client (extra `serve`)", None)
        import urllib3

        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            reject("url", "must be http://HOST:PORT or https://HOST:PORT", url)
        check_int("retries", retries, minimum=0)
        timeout_s = check_positive("timeout_s", timeout_s)
        which = "" if version is None else f"/versions/{check_int('version', version, minimum=0)}"
        self._url = f"{url.rstrip('/')}/v1/models/{quote(model, safe='')}{which}"
        self._pool = urllib3.PoolManager(
            maxsize=32,
            timeout=timeout_s,
            retries=urllib3.Retry(
                total=retries,
                redirect=0,
                backoff_factor=0.1,
                allowed_methods=None,
                status_forcelist=_AGAIN,
                raise_on_status=False,
            ),
        )

    def __str__(self) -> str:
        return self._url

    def ready(self) -> bool:
        try:
            states = self._request("GET", "")["model_version_status"]
            return any(state["state"] == "AVAILABLE" for state in states)
        except (ServerError, KeyError, TypeError):
            return False

    def close(self) -> None:
        self._pool.clear()

    def _definitions(self) -> Mapping:
        try:
            return self._request("GET", "/metadata")["metadata"]["signature_def"]["signature_def"]
        except (KeyError, TypeError):
            raise self._strange("no metadata") from None

    def _ask(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        columns = {name: values.tolist() for name, values in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}, allow_nan=False)
        outputs = self._request("POST", ":predict", body).get("outputs")
        rows = len(inputs["embedding"])
        if type(outputs) is not dict or any(len(v) != rows for v in outputs.values()):
            raise self._strange("other outputs")
        return {
            name: np.array(values, str if name == "label" else np.float32)
            for name, values in outputs.items()
        }

    def _request(self, method: str, path: str, body: str | None = None) -> dict:
        import urllib3

        headers = {"Content-Type": "application/json"} if body else {}
        try:
            answer = self._pool.request(method, self._url + path, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            came = " ".join(str(getattr(error, "reason", None) or error).split())[:200]
            raise ServerError(f"`{self}` must be a server that answers. Received: {came}") from None
        try:
            content = json.loads(answer.data, parse_constant=lambda _: math.nan)
        except ValueError:
            content = None
        if answer.status != 200:
            came = content.get("error") if type(content) is dict else None
            came = f"status {answer.status}, {' '.join(str(came or 'no reason').split())[:300]}"
            raise ServerError(f"`{self}` must answer. Received: {came}", answer.status)
        if type(content) is not dict:
            raise self._strange("no JSON object")
        return content

    def _strange(self, came: str) -> ServerError:
        return ServerError(f"`{self}` must answer as TensorFlow Serving does. Received: {came}")
