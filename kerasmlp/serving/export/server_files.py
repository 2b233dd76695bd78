"""What TensorFlow Serving wants to know beside a model: configuration, batching, a container."""

import os
from pathlib import Path

from kerasmlp.utils.files import atomic_path

_MODELS = """\
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
}}
"""

_BATCHING = """\
# Read only with --enable_batching. Requests that arrive together are then computed
# together: more answers per second, at three prices. `num_samples` and `seed` must be
# given per row; a request that is refused takes those along that it was merged with;
# and the last bits of an answer depend on how many rows came together.
max_batch_size {{ value: 256 }}
batch_timeout_micros {{ value: 1000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 4 }}
"""

_COMPOSE = """\
# docker compose up --wait; REST on port 8501, gRPC on 8500, for this machine only.
services:
  {name}:
    image: tensorflow/serving:2.20.0
    volumes:
      - .:/models/{name}:ro
    entrypoint: ["tensorflow_model_server"]
    command:
      - --port=8500
      - --rest_api_port=8501
      - --model_config_file=/models/{name}/models.config
      # - --enable_batching
      # - --batching_parameters_file=/models/{name}/batching_parameters.txt
    ports:
      - 127.0.0.1:8500:8500
      - 127.0.0.1:8501:8501
    healthcheck:
      # The image has no curl.
      test:
        - CMD
        - bash
        - -c
        - >-
          exec 3<>/dev/tcp/127.0.0.1/8501;
          printf 'GET /v1/models/{name} HTTP/1.0\\r\\n\\r\\n' >&3;
          grep -q AVAILABLE <&3
      interval: 10s
      timeout: 5s
      start_period: 20s
      retries: 3
    restart: unless-stopped
"""

_TEMPLATES = {
    "models.config": _MODELS,
    "batching_parameters.txt": _BATCHING,
    "docker-compose.yml": _COMPOSE,
}

SERVER_FILES = tuple(_TEMPLATES)


def write_server_files(folder: str | os.PathLike, name: str) -> dict[str, bool]:
    """Writes `models.config`, `batching_parameters.txt` and `docker-compose.yml`.

    Files that are there already are kept: they may have been changed by hand.

    Returns:
        File name to whether it was written.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_server_files(folder, "age")
    ...     write_server_files(folder, "age")["models.config"]
    False
    """
    written = {file: not (Path(folder) / file).exists() for file in SERVER_FILES}
    for file, new in written.items():
        if new:
            with atomic_path(Path(folder) / file, replace=False, private=False) as temporary:
                temporary.write_text(_TEMPLATES[file].format(name=name), encoding="utf-8")
    return written
