from kerasmlp.serving.clients.client import ServerError as ServerError
from kerasmlp.serving.clients.grpc_client import GrpcClient as GrpcClient
from kerasmlp.serving.clients.rest_client import RestClient as RestClient
