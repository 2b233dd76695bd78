from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kerasmlp.serving.server.watching import Watch

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class ServiceMetrics:
    """Counters of one service; `text` gives them all in Prometheus' format.

    No label comes from a request: a model or signature that is not served
    counts as "".
    """

    def __init__(self):
        self._registry = CollectorRegistry()
        how = {"registry": self._registry}
        self.answers = Counter(
            "kerasmlp_answers", "Answers to questions.", ["model", "signature", "code"], **how
        )
        self.rows = Counter("kerasmlp_rows", "Rows answered.", ["model", "signature"], **how)
        self.seconds = Histogram(
            "kerasmlp_answer_seconds", "From request to answer.", buckets=_SECONDS, **how
        )
        self.batch_rows = Histogram(
            "kerasmlp_batch_rows", "Rows computed together.", buckets=_ROWS, **how
        )
        self.active = Gauge("kerasmlp_active_requests", "Requests being answered.", **how)
        self.waiting_rows = Gauge("kerasmlp_waiting_rows", "Rows not computed yet.", **how)
        version = ["model", "version"]
        self._watched = {
            "rows": Gauge(
                "kerasmlp_watched_rows", "Rows held against the reference.", version, **how
            ),
            "alarms": Gauge(
                "kerasmlp_moved_alarms", "Alarms that rows have moved.", version, **how
            ),
            "moved": Gauge(
                "kerasmlp_moved", "1 in and after a window of rows that alarmed.", version, **how
            ),
            "log10_evidence": Gauge(
                "kerasmlp_moved_evidence", "log10 of the bet on moved rows.", version, **how
            ),
            "log10_limit": Gauge(
                "kerasmlp_moved_limit", "log10 of the bet that alarms.", version, **how
            ),
        }

    def watched(self, watches: Mapping[tuple[str, int], Watch]) -> None:
        """Takes over what the watches of the versions that are served say now.

        Args:
            watches: By the name of the model and the number of the version.
        """
        for name, gauge in self._watched.items():
            gauge.clear()  # of versions that are served no more
            for (model, version), watch in watches.items():
                gauge.labels(model, str(version)).set(getattr(watch, name))

    def text(self) -> bytes:
        return generate_latest(self._registry)
