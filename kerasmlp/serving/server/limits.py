from dataclasses import dataclass, fields

from kerasmlp.utils.checks import check_int, check_positive


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, and all of them together, may cost a server.

    Args:
        max_body_bytes: Of one request; of all that wait, eight times that.
        max_rows: Of one request.
        max_samples: MC passes per row; the model may take fewer.
        max_passes: Rows × MC passes of one request, or of those computed together.
        max_requests: That wait or are computed at one time; more get 503.
        max_connections: That are open at one time, by HTTP and as many by gRPC;
            fewer where the system lets this process open fewer files.
        max_batch_rows: Up to which concurrent requests are merged; 0 merges none.
        timeout_s: Until a request is answered with 408 or 504.
        drain_s: How long a server that stops says so before it closes its port.

    Raises:
        InputError: if one of them is no bound.

    Example:

    >>> Limits(max_rows=64).max_samples
    4096
    """

    max_body_bytes: int = 16 << 20
    max_rows: int = 1024
    max_samples: int = 4096
    max_passes: int = 1 << 18
    max_requests: int = 256
    max_connections: int = 1024
    max_batch_rows: int = 256
    timeout_s: float = 30.0
    drain_s: float = 0.5

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_s"):
                check_positive(field.name, value)
            else:
                check_int(field.name, value, minimum=0 if field.name == "max_batch_rows" else 1)
