"""What `serve` answers, as OpenAPI 3.1 describes it."""

from functools import cache
from typing import Any

from kerasmlp import __version__

_ASKING = {
    400: "What cannot be understood",
    403: "Asked by another site's page, or under a name that the server does not have",
    404: "No such model or version",
    408: "The body did not arrive in time",
    411: "Without a Content-Length",
    413: "Too large",
    415: "Compressed",
    503: "Too many requests at one time: try again after Retry-After seconds",
    504: "Not computed in time",
}
_TEXT, _COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
_ROW = {"type": "array", "items": {"type": "number"}, "description": "An embedding."}
_NUMBERS = {
    "num_samples": {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "array"}]},
    "seed": {"oneOf": [_COUNT, {"type": "array"}]},
}


def _object(required: str = "", *, closed: bool = False, **properties: Any) -> dict:
    whole: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        whole["required"] = required.split()
    return whole | ({"additionalProperties": False} if closed else {})


def _list(items: Any) -> dict:
    return {"type": "array", "items": items}


def _schema(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}"}


_DATATYPE = {"type": "string", "examples": ["FP32", "INT32", "INT64", "BYTES"]}
_DATA = {"type": "array", "description": "Row by row, flat; of an embedding also row in row."}
_SIZED = _object(binary_data_size=_COUNT, content_type=_TEXT)
_TENSOR = {"name": _TEXT, "datatype": _DATATYPE, "shape": _list({"type": "integer"})}
_SCHEMAS = {
    "Error": _object("error", error={"type": "string", "description": "One sentence."}),
    "PredictRequest": {
        "oneOf": [
            _object(
                "instances",
                signature_name=_TEXT,
                instances=_list({"oneOf": [_ROW, _object("embedding", embedding=_ROW)]}),
            ),
            _object(
                "inputs",
                signature_name=_TEXT,
                inputs={
                    "oneOf": [
                        _list(_ROW),
                        _object("embedding", closed=True, embedding=_list(_ROW), **_NUMBERS),
                    ]
                },
            ),
        ]
    },
    "PredictResponse": {
        "oneOf": [_object("predictions", predictions={"type": "array"}), _object("outputs")]
    },
    "EmbedResponse": _object(
        "faces predictions",
        faces=_list(
            _object(
                "box det_score embedding",
                box={**_ROW, "description": "Left, top, right, bottom, in pixels."},
                det_score={"type": ["number", "null"]},
                embedding=_ROW,
            )
        ),
        predictions={"type": "array", "description": "One for each face."},
    ),
    "ModelStatus": _object(
        "model_version_status",
        model_version_status=_list(
            _object(
                "version state status",
                version=_TEXT,
                state={"enum": ["AVAILABLE", "LOADING", "END"]},
                status=_object("error_code", error_code=_TEXT, error_message=_TEXT),
            )
        ),
    ),
    "ModelMetadata": _object("model_spec metadata", model_spec=_object(), metadata=_object()),
    "Said": _object("status", status=_TEXT),
    "Server": _object(
        "name version extensions", name=_TEXT, version=_TEXT, extensions=_list(_TEXT)
    ),
    "Live": _object("live", live={"type": "boolean"}),
    "Ready": _object("ready", name=_TEXT, ready={"type": "boolean"}),
    "TensorMetadata": _object("name datatype shape", **_TENSOR),
    "InferMetadata": _object(
        "name versions platform inputs outputs signatures",
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_schema("TensorMetadata")),
        outputs=_list(_schema("TensorMetadata")),
        signatures={
            "type": "object",
            "additionalProperties": _object(
                "inputs outputs",
                inputs=_list(_schema("TensorMetadata")),
                outputs=_list(_schema("TensorMetadata")),
            ),
        },
    ),
    "InferRequest": _object(
        "inputs",
        closed=True,
        id=_TEXT,
        model_name=_TEXT,
        parameters=_object(
            signature_name=_TEXT, binary_data_output={"type": "boolean"}, content_type=_TEXT
        ),
        inputs=_list(
            _object(
                "name datatype shape", closed=True, **_TENSOR, data=_DATA, parameters=_SIZED
            )
        ),
        outputs=_list(
            _object(
                "name",
                closed=True,
                name=_TEXT,
                parameters=_object(binary_data={"type": "boolean"}, content_type=_TEXT),
            )
        ),
    ),
    "InferResponse": _object(
        "model_name model_version outputs",
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        outputs=_list(
            _object("name datatype shape", **_TENSOR, data=_DATA, parameters=_SIZED)
        ),
    ),
}  # fmt: skip
_SIZE_HEADER = {
    "description": "Bytes of the JSON before binary tensors.",
    "schema": _COUNT,
}


def _json(name: str) -> dict:
    return {"application/json": {"schema": _schema(name)}}


def _looking(summary: str, schema: str, *others: int) -> dict:
    return {"get": _operation(summary, _json(schema), {c: _ASKING[c] for c in others})}


def _operation(summary: str, content: dict, refusals: dict[int, str], **more: Any) -> dict:
    responses = {"200": {"description": "The answer", "content": content}}
    for code, text in {403: _ASKING[403], **refusals}.items():
        responses[str(code)] = {"description": text, "content": _json("Error")}
    return {"summary": summary, **more, "responses": dict(sorted(responses.items()))}


def _predicting() -> dict:
    body = {"required": True, "content": _json("PredictRequest")}
    text = "Answers rows, or columns, as TensorFlow Serving's REST API does"
    return {"post": _operation(text, _json("PredictResponse"), _ASKING, requestBody=body)}


def _inferring() -> dict:
    binary = {"application/octet-stream": {}}
    body = {"required": True, "content": _json("InferRequest") | binary}
    header = {"name": "Inference-Header-Content-Length", "in": "header", **_SIZE_HEADER}
    text = "Answers tensors, as the Open Inference Protocol has it, in JSON or behind it"
    content = _json("InferResponse") | binary
    how = {"requestBody": body, "parameters": [header]}
    operation = _operation(text, content, _ASKING, **how)
    operation["responses"]["200"]["headers"] = {header["name"]: _SIZE_HEADER}
    return {"post": operation}


def _embedding() -> dict:
    body = {"required": True, "content": {"image/jpeg": {}, "image/png": {}}}
    query = [
        {
            "name": name,
            "in": "query",
            "schema": _COUNT,
            "description": f"Of MC dropout; with {beside}",
        }
        for name, beside in (("num_samples", "seed"), ("seed", "num_samples"))
    ]
    text = "Finds the faces of a photo, and answers their embeddings"
    how = {"requestBody": body, "parameters": query}
    return {"post": _operation(text, _json("EmbedResponse"), _ASKING, **how)}


@cache
def openapi(*, photos: bool = False) -> dict:
    """The description of all paths.

    Args:
        photos: Whether there is an embedder.

    Example:

    >>> sorted(openapi()["paths"])[:3]
    ['/healthz', '/metrics', '/openapi.json']
    """
    model = "/v1/models/{model}"
    paths = {
        "/healthz": _looking("Whether it runs", "Said"),
        "/readyz": _looking("Whether to send requests", "Said", 503),
        "/metrics": {"get": _operation("Counters, for Prometheus", {"text/plain": {}}, {})},
        "/openapi.json": {"get": _operation("This page", {"application/json": {}}, {})},
        "/v2": _looking("What this server is", "Server"),
        "/v2/health/live": _looking("Whether it runs", "Live"),
        "/v2/health/ready": _looking("Whether to send requests", "Ready", 503),
    }
    for which in ("", "/versions/{version}", "/labels/{label}"):
        one = model + which
        paths[one] = _looking("Which versions are available", "ModelStatus", 404)
        paths[f"{one}/metadata"] = _looking("Its signatures", "ModelMetadata", 404)
        paths[f"{one}:predict"] = _predicting()
        if photos:
            paths[f"{one}:embed"] = _embedding()
    for which in ("", "/versions/{version}"):
        one = f"/v2/models/{{model}}{which}"
        paths[one] = _looking("Its tensors", "InferMetadata", 404)
        paths[f"{one}/ready"] = _looking("Whether it is served", "Ready", 404, 503)
        paths[f"{one}/infer"] = _inferring()
    for path, item in paths.items():
        names = [part.partition("}")[0] for part in path.split("{")[1:]]
        if names:
            item["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names
            ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "kerasmlp serve", "version": __version__},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }
