import base64
import importlib.util
import json
import math
import time
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import numpy as np

from kerasmlp.serving.clients.client import Client, PassingError, ServerError
from kerasmlp.utils.checks import reject

_AGAIN = (429, 502, 503)


class RestClient(Client):
    """Asks one model of `serve` or TensorFlow Serving over HTTP; needs urllib3 (extra `serve`).

    What found no server, or one that is too busy, is asked again; what was not answered in
    time is not. It may be shared by threads.

    Args:
        url: Of the server, such as `"http://127.0.0.1:8501"`.
        model: Its name.
        version: To ask; None takes the latest.
        timeout_s: Of one try.
        retries: Further tries where no server is found, or one that is too busy.

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
        super().__init__(version=version, timeout_s=timeout_s, retries=retries)
        if not importlib.util.find_spec("urllib3"):
            reject("urllib3", "must be installed for the REST client (extra `serve`)", None)
        import urllib3

        parts = urlsplit(url) if isinstance(url, str) else None
        if not (parts and parts.scheme in ("http", "https") and parts.hostname) or (
            "/v1/models" in parts.path
        ):
            reject("url", "must be http://HOST:PORT or https://HOST:PORT", url)
        if not isinstance(model, str) or not model:
            reject("model", "must be the name of a model", model)
        which = "" if self._version is None else f"/versions/{self._version}"
        self._url = f"{url.rstrip('/')}/v1/models/{quote(model, safe='')}{which}"
        self._pool = urllib3.PoolManager(maxsize=32)

    def __str__(self) -> str:
        return self._url

    def ready(self) -> bool:
        try:
            states = self._tried(self._request, "GET", "")["model_version_status"]
            return any(state["state"] == "AVAILABLE" for state in states)
        except (ServerError, KeyError, TypeError):
            return False

    def close(self) -> None:
        self._pool.clear()

    def _definitions(self) -> Mapping:
        try:
            answer = self._tried(self._request, "GET", "/metadata")
            return answer["metadata"]["signature_def"]["signature_def"]
        except (KeyError, TypeError):
            raise self._strange("no metadata") from None

    def _ask(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        columns = {name: values.tolist() for name, values in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}, allow_nan=False)
        outputs = self._tried(self._request, "POST", ":predict", body).get("outputs")
        if type(outputs) is not dict:
            raise self._strange("other outputs")
        with self._understanding():
            kinds = self._outputs.get(signature, {})
            answers = {
                name: _texts(name, values) if kinds.get(name) else np.array(values, np.float32)
                for name, values in outputs.items()
            }
        return self._complete(signature, answers, len(inputs["embedding"]))

    def _request(self, method: str, path: str, body: str | None = None) -> dict:
        import urllib3

        sentence = f"`{self}` must be a server that answers. Received: "
        try:
            status, wanted_s, data = self._answer(method, self._url + path, body)
        except urllib3.exceptions.ReadTimeoutError:
            came = f"no whole answer within {self._timeout_s:g} s"
            raise ServerError(sentence + came) from None
        except urllib3.exceptions.HTTPError as error:
            raise PassingError(sentence + " ".join(str(error).split())[:200]) from None
        try:
            content = json.loads(data, parse_constant=lambda _: math.nan)
        except (ValueError, RecursionError):
            content = None
        if status != 200:
            came = content.get("error") if type(content) is dict else None
            came = f"status {status}, {' '.join(str(came or 'no reason').split())[:300]}"
            kind = PassingError if status in _AGAIN else ServerError
            raise kind(f"`{self}` must answer. Received: {came}", status, wanted_s)
        if type(content) is not dict:
            raise self._strange("no JSON object")
        return content

    def _answer(self, method: str, url: str, body: str | None) -> tuple[int, str | None, bytes]:
        """Status, when to come again, and body, all of which arrived in time."""
        from urllib3.exceptions import ReadTimeoutError

        end = time.monotonic() + self._timeout_s
        answer = self._pool.request(
            method,
            url,
            body=body,
            headers={"Content-Type": "application/json"} if body else {},
            timeout=self._timeout_s,
            retries=False,
            preload_content=False,
        )
        parts = []
        try:
            while part := answer.read1(1 << 16):
                parts.append(part)
                if time.monotonic() > end:  # the time-out above is of each read alone
                    raise ReadTimeoutError(None, url, f"{url}: Read timed out")
        except BaseException:
            answer.close()
            raise
        answer.release_conn()
        return answer.status, answer.headers.get("Retry-After"), b"".join(parts)


def _texts(name: str, values: list) -> np.ndarray:
    """As TensorFlow Serving writes them: those of a name in `_bytes` in base64."""
    if name.endswith("_bytes"):
        values = [base64.b64decode(value["b64"]).decode() for value in values]
    return np.array(values, str)
