"""Metrics that are pushed to OTLP collectors: one in this process, one that is away, one that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource

from phasebus.bus import StepFailed, StepFinished, StepStarted, new_step_id
from phasebus.observers import MetricsObserver
from phasebus.telemetry import Collector, Metrics, RunIdentity, Telemetry, names
from phasebus.telemetry.metric_push import MetricPush
from phasebus.telemetry.otel import MetricSettings
from phasebus.telemetry.otel.findings import Findings
from phasebus.telemetry.otlp_metrics import metrics_data
from tests.support.otel_version import exports_since
from tests.support.otlp import OtlpSink, Push, otlp_sink
from tests.support.programs import free_port
from tests.support.waiting import wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"

pytestmark = pytest.mark.anyio


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of phasebus; an exporter of an earlier test may log meanwhile that it tries again."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("phasebus")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with otlp_sink() as sink:
        yield sink


def telemetry(**environment: str) -> Telemetry:
    return Telemetry(RunIdentity.fresh("n", environment), port=None, environment=environment)


def observe_starts(metrics: Metrics) -> None:
    """A node that starts within 12 s, one that fails, and a download that runs."""
    observer = MetricsObserver(metrics, TRACE)
    node = new_step_id()
    observer.observe(StepStarted(step=node, kind="node", name="n", attributes={"model": "m"}))
    observer.observe(StepFinished(step=node, kind="node", name="n", seconds=12, attributes={"model": "m"}))
    failed: dict[str, Any] = {"kind": "node", "name": "n", "attributes": {"model": "m"}}
    observer.observe(StepFailed(step=new_step_id(), seconds=1, outcome="failed", error=ValueError("no"), **failed))
    observer.observe(
        StepStarted(step=new_step_id(), kind="download", name="m", attributes={"model": "m", "source": "hf"})
    )


async def test_without_an_exporter_nothing_is_pushed_although_spans_are(sink: OtlpSink) -> None:
    async with telemetry(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url) as running:
        running.push_metrics()
    assert sink.pushes == []


@pytest.mark.parametrize("exporters", ["", "none", "prometheus", "none,prometheus"])
def test_exporters_that_push_nothing(exporters: str) -> None:
    findings = Findings()
    assert MetricSettings.from_environment({"OTEL_METRICS_EXPORTER": exporters}, findings).exporters == ()
    assert findings.problems == []


async def test_the_last_values_are_pushed_at_the_end_with_the_resource_of_the_run(sink: OtlpSink) -> None:
    variables = {"OTEL_SERVICE_NAME": "llm", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=k"}
    async with telemetry(OTEL_METRICS_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **variables) as running:
        observe_starts(running.metrics)
    (push,) = sink.pushes
    assert (push.path, push.headers["api-key"], push.resource["service.name"]) == ("/v1/metrics", "k", "llm")
    assert push.resource["service.instance.id"]
    assert not [name for name in push.metrics if name.startswith("target")]  # the resource is target_info
    assert counted(push, "phasebus_node_startups", outcome="failed") == 1
    (point,) = push.metrics["phasebus_node_startup_duration_seconds"].histogram.data_points
    assert (point.count, point.sum, sum(point.bucket_counts)) == (1, 12, 1)
    assert not point.HasField("min")
    assert [exemplar.trace_id.hex() for exemplar in point.exemplars] == [TRACE]


def counted(push: Push, name: str, **labels: str) -> float:
    (value,) = (
        point.as_double
        for point in push.metrics[name].sum.data_points
        if labels.items() <= {each.key: each.value.string_value for each in point.attributes}.items()
    )
    return value


async def test_metrics_are_pushed_at_the_interval_and_on_request(sink: OtlpSink) -> None:
    to_sink = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{sink.url}/otlp/metrics"}
    async with telemetry(**to_sink, OTEL_METRIC_EXPORT_INTERVAL="20"):
        wait_until(lambda: len(sink.pushes) >= 2, "two pushes have arrived")
    sink.pushes.clear()
    async with telemetry(**to_sink, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as running:
        running.push_metrics()
        wait_until(lambda: len(sink.pushes) == 1, "the requested push has arrived")
    assert {push.path for push in sink.pushes} == {"/otlp/metrics"}
    assert len(sink.pushes) == 2


async def test_metrics_are_pushed_over_grpc() -> None:
    import grpc

    received: list[Any] = []

    class Service(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            received.append((dict(context.invocation_metadata())["api-key"], request))
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    variables = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "api-key=k",
    }
    try:
        async with telemetry(**variables) as running:
            observe_starts(running.metrics)
    finally:
        server.stop(None).wait()
    ((key, request),) = received
    assert (key, counted(Push("", {}, request), "phasebus_node_startups", outcome="finished")) == ("k", 1)


def test_every_value_of_the_registry_is_pushed_under_its_name() -> None:
    """The reverse translation, as a receiver of OTLP makes it for Prometheus, gives the samples of /metrics back."""
    metrics = Metrics("1")
    observe_starts(metrics)
    ignored = (
        "process_",
        "phasebus_start_time",
        "phasebus_node_startup_age",
        "phasebus_download_age",
    )  # change with time
    exposed = {
        (sample.name, frozenset((key, _bound(key, value)) for key, value in sample.labels.items())): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created") and not sample.name.startswith(ignored)
    }
    pushed = {
        key: value
        for key, value in _samples(metrics_data(metrics.registry, Resource({}), "1", since_ns=1))
        if not key[0].startswith(ignored)
    }
    summaries = {key for key in pushed if key not in exposed}
    assert {name.removesuffix("_bucket") for name, _ in summaries} <= {
        family.name for family in metrics.registry.collect() if family.type == "summary"
    }
    assert {key: value for key, value in pushed.items() if key not in summaries} == exposed


def _bound(key: str, value: str) -> str:
    return str(float(value)) if key == "le" else value


def _samples(data: MetricsData) -> Iterator[tuple[tuple[str, frozenset[tuple[str, Any]]], float]]:
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        points: Sequence[Any] = metric.data.data_points
        for point in points:
            labels = frozenset((point.attributes or {}).items())
            if not hasattr(point, "bucket_counts"):
                suffix = "_total" if getattr(metric.data, "is_monotonic", False) else ""
                yield (f"{metric.name}{suffix}", labels), point.value
                continue
            yield (f"{metric.name}_sum", labels), point.sum
            yield (f"{metric.name}_count", labels), point.count
            bounds = [*map(str, map(float, point.explicit_bounds)), "inf"]
            for number, bound in enumerate(bounds, 1):
                yield (f"{metric.name}_bucket", labels | {("le", bound)}), sum(point.bucket_counts[:number])


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("phasebus_node_startup_duration_seconds", "s"),
        ("phasebus_progress_bytes", "By"),
        ("phasebus_node_startups", ""),
    ],
)
def test_units_are_those_of_the_names(name: str, unit: str) -> None:
    metrics = Metrics("1")
    observe_starts(metrics)
    metrics.series(names.PROGRESS, {"kind": "download"}).inc(1)
    pushed = metrics_data(metrics.registry, Resource({}), "1", since_ns=1).resource_metrics[0].scope_metrics[0].metrics
    assert {metric.unit for metric in pushed if metric.name == name} == {unit}


@exports_since(1, 41, "try again when a connection is refused")
async def test_a_collector_that_is_away_delays_neither_the_start_nor_for_long_the_end() -> None:
    variables = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "5",
    }
    async with telemetry(**variables) as running:
        running.push_metrics()
        observe_starts(running.metrics)
    (thread,) = (each for each in threading.enumerate() if each.name == "phasebus metrics")
    assert thread.is_alive()  # the exporter still tries, and the end did not wait for it


def test_the_end_does_not_wait_for_a_collector_that_does_not_answer(
    sink: OtlpSink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answering.clear()
    collector = Collector(protocol="http/protobuf", endpoint=f"{sink.url}/v1/metrics")
    waited: list[threading.Thread] = []
    push = pushing(collector.metric_exporter(), interval=60, wait=waited.append)
    push.start()
    push.push_now()
    wait_until(lambda: sink.pushes, "the collector reads a request")
    push.close()
    (thread,) = waited
    assert thread.is_alive()
    assert "the last values were not accepted in time" in caplog.text
    sink.answering.set()
    thread.join()
    assert len(sink.pushes) == 2


@pytest.mark.parametrize(
    ("status", "content_type", "why"),
    [(308, "text/plain", "it redirects, with HTTP 308"), (200, "text/html", "it answers with a web page")],
)
def test_server_that_is_no_collector_is_named(
    sink: OtlpSink, caplog: pytest.LogCaptureFixture, status: int, content_type: str, why: str
) -> None:
    sink.answer = lambda _: (status, {"Content-Type": content_type})
    collector = Collector(protocol="http/protobuf", endpoint=f"{sink.url}/v1/metrics")
    push = pushing(collector.metric_exporter(), interval=60)
    push.start()
    push.close()
    assert why in caplog.text


class Exporter:
    """An exporter that raises at first, and then rejects everything."""

    def __init__(self) -> None:
        self.calls = 0
        self.closed = False

    def export(self, _: object) -> MetricExportResult:
        self.calls += 1
        if self.calls == 1:
            raise OSError("connection refused")
        return MetricExportResult.FAILURE

    def shutdown(self) -> None:
        self.closed = True


def test_an_exporter_that_fails_is_one_warning_and_is_used_again(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter()
    push = pushing(exporter, interval=0.01)
    push.start()
    wait_until(lambda: exporter.calls >= 3, "it has been used three times")
    push.close()
    assert exporter.closed
    assert logged(caplog) == [
        "metrics cannot be pushed to the test (OSError: connection refused); the start-up goes on without"
    ]


def test_a_push_that_was_not_started_ends_at_once() -> None:
    exporter = Exporter()
    pushing(exporter, interval=1).close()
    assert exporter.calls == 0


def pushing(
    exporter: Any, interval: float, wait: Callable[[threading.Thread], None] = threading.Thread.join
) -> MetricPush:
    data = metrics_data(Metrics("1").registry, Resource({}), "1", since_ns=1)
    return MetricPush(exporter, "the test", lambda: data, interval, wait)


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"OTEL_METRIC_EXPORT_INTERVAL": "often"}, "OTEL_METRIC_EXPORT_INTERVAL is 'often'"),
        (
            {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"},
            "'delta'; only cumulative values are exported. cumulative is used",
        ),
        (
            {"OTEL_METRICS_EXPORTER": "influx"},
            "'influx': OTEL_METRICS_EXPORTER names an exporter that is not installed",
        ),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "collector:4318"}, "it does not begin with http:// or https://"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_warning(
    caplog: pytest.LogCaptureFixture, variables: Mapping[str, str], problem: str
) -> None:
    telemetry(**{"OTEL_METRICS_EXPORTER": "otlp", **variables})
    (message,) = logged(caplog)
    assert problem in message


async def test_the_console_exporter_prints_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    async with telemetry(OTEL_METRICS_EXPORTER="console") as running:
        observe_starts(running.metrics)
    assert '"name": "phasebus_node_startups"' in capsys.readouterr().out
