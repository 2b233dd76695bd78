import importlib.util
from collections.abc import Mapping

import numpy as np

from kerasmlp.serving.clients.client import Client, PassingError, ServerError
from kerasmlp.utils.checks import reject

_AGAIN = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


class GrpcClient(Client):
    """Asks one model of TensorFlow Serving over gRPC (extra `grpc`).

    Args:
        address: Host and port, such as `"127.0.0.1:8500"`; not encrypted.
        model: Its name.
        version: To ask; None takes the latest.
        timeout_s: Of one try.
        retries: As of `RestClient`.

    Raises:
        InputError: if an argument is no such thing, or a package is missing.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
    ):
        super().__init__(version=version, timeout_s=timeout_s, retries=retries)
        for module, package in (("grpc", "grpcio"), ("tensorflow_serving", None)):
            if not importlib.util.find_spec(module):
                package = package or "tensorflow-serving-api"
                reject(package, "must be installed for the gRPC client (extra `grpc`)", None)
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        if "://" in address or ":" not in address:
            reject("address", "must be HOST:PORT", address)
        self._address, self._model = address, model
        unbounded = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        self._channel = grpc.insecure_channel(address, options=unbounded)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def __str__(self) -> str:
        return f"grpc://{self._address}/{self._model}"

    def ready(self) -> bool:
        try:
            return bool(self._definitions())
        except ServerError:
            return False

    def close(self) -> None:
        self._channel.close()

    def _definitions(self) -> Mapping:
        from google.protobuf.json_format import MessageToDict
        from tensorflow_serving.apis import get_model_metadata_pb2 as metadata

        request = metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._name(request.model_spec)
        answer = self._tried(self._call, self._stub.GetModelMetadata, request)
        found = metadata.SignatureDefMap()
        with self._understanding():
            answer.metadata["signature_def"].Unpack(found)
            return {
                name: MessageToDict(definition, preserving_proto_field_name=True)
                for name, definition in found.signature_def.items()
            }

    def _ask(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        self._name(request.model_spec)
        request.model_spec.signature_name = signature
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        outputs = self._tried(self._call, self._stub.Predict, request).outputs
        with self._understanding():
            answers = {name: tf.make_ndarray(tensor) for name, tensor in outputs.items()}
            for name, values in answers.items():
                if values.dtype.kind == "O":
                    answers[name] = np.char.decode(values.astype(bytes), "utf-8")
        return self._complete(signature, answers, len(inputs["embedding"]))

    def _name(self, spec) -> None:
        spec.name = self._model
        if self._version is not None:
            spec.version.value = self._version

    def _call(self, method, request):
        import grpc

        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            code = error.code().name
            came = f"{code}, {' '.join((error.details() or '').split())[:300]}"
            kind = PassingError if code in _AGAIN else ServerError
            raise kind(f"`{self}` must answer. Received: {came}", code) from None
