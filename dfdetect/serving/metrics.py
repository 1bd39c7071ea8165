"""Prometheus metrics under TensorFlow Serving's names."""

import prometheus_client
from prometheus_client import utils

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = ":tensorflow:serving:"
_MICROSECONDS = [10 * 1.8**power for power in range(33)]
_SIZES = [2**power for power in range(15)]


class Metrics:
    """Metrics of one server. All times are in microseconds."""

    def __init__(self) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        self._process = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._process)
        self._requests = self._counter(
            "request_count", "The total number of requests.", "model_name", "status"
        )
        self._examples = self._counter(
            "request_example_count",
            "The total number of tensorflow.Examples.",
            "model",
        )
        self._latency = self._histogram(
            "request_latency",
            "Wall time of a request.",
            *("model_name", "API", "entrypoint"),
        )
        self._runtime = self._histogram(
            "runtime_latency",
            "Wall time of the graph, with the wait for a batch.",
            *("model_name", "API", "runtime"),
        )
        self._warmup = self._histogram(
            "model_warmup_latency", "Wall time of the warm-up.", "model_path", "status"
        )
        self._queuing = self._histogram(
            "batching_session:queuing_latency",
            "How long the first request of a batch waited.",
        )
        self._runs = self._counter(
            "batching_session:wrapped_run_count", "The total number of batches."
        )
        self._sizes = prometheus_client.Histogram(
            f"{_PREFIX}batching:processed_batch_size",
            "Examples of a batch, with those that fill it up.",
            ["model_name"],
            registry=self._registry,
            buckets=_SIZES,
        )

    def request(
        self, model: str, api: str, entrypoint: str, status: str, seconds: float
    ) -> None:
        """Counts a request that was answered, whatever the answer."""
        self._requests.labels(model, status).inc()
        self._latency.labels(model, api, entrypoint).observe(seconds * 1e6)

    def examples(self, model: str, count: int) -> None:
        """Counts examples of classification and regression."""
        self._examples.labels(model).inc(count)

    def runtime(self, model: str, api: str, seconds: float) -> None:
        """Counts a run of a graph for a request."""
        self._runtime.labels(model, api, "TF1").observe(seconds * 1e6)

    def warmup(self, model: str, status: str, seconds: float) -> None:
        """Counts a warm-up. The model's name stands for its path."""
        self._warmup.labels(model, status).observe(seconds * 1e6)

    def batch(self, model: str, size: int, waited: float) -> None:
        """Counts a batch; see `batching.Batcher`."""
        self._sizes.labels(model).observe(size)
        self._queuing.observe(waited * 1e6)
        self._runs.inc()

    def page(self) -> bytes:
        """Writes all metrics, and those of the process, in Prometheus's text format."""
        lines = []
        for family in self._registry.collect():
            # The client puts `_total` behind the name of a counter. TensorFlow Serving
            # does so with the one of examples only.
            name = family.name
            if name.endswith("request_example_count"):
                name += "_total"
            lines.append(f"# TYPE {name} {family.type}")
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue
                written = name if family.type == "counter" else sample.name
                labels = ",".join(
                    f'{key}="{_escaped(value)}"' for key, value in sample.labels.items()
                )
                value = utils.floatToGoString(sample.value)
                lines.append(f"{written}{{{labels}}} {value}")
        text = "\n".join([*lines, ""]).encode()
        return text + prometheus_client.generate_latest(self._process)

    def _counter(self, name: str, text: str, *labels: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(
            _PREFIX + name, text, labels, registry=self._registry
        )

    def _histogram(
        self, name: str, text: str, *labels: str
    ) -> prometheus_client.Histogram:
        return prometheus_client.Histogram(
            _PREFIX + name,
            text,
            labels,
            registry=self._registry,
            buckets=_MICROSECONDS,
        )


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
