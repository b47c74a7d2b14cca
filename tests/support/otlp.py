"""OTLP backends: a real one, and a small one in the test's own process that shows each request."""

from __future__ import annotations

import gzip
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from phasebus.telemetry import EngineSpan
from phasebus.telemetry.journal import Run
from phasebus.telemetry.relay import read_spans
from tests.support.programs import free_port, program
from tests.support.traces import ExportedSpan, assert_is_one_trace, exported_spans, faults
from tests.support.waiting import wait_until

_CALLER_NS = 120 * 10**9


class OtlpBackend:
    """A running ddapm-test-agent, which receives OTLP over HTTP and gRPC."""

    def __init__(self, http_port: int, grpc_port: int) -> None:
        self.http = f"http://127.0.0.1:{http_port}"
        self.grpc = f"http://127.0.0.1:{grpc_port}"

    def spans(self, trace: str) -> list[EngineSpan]:
        """Return every span of one trace that has arrived."""
        return [span for span in self._all() if span.trace == trace]

    def spans_of(self, run: Run) -> list[EngineSpan]:
        """Return the spans of a run's trace, once every step of its journal has one; assert that it is a whole trace."""
        steps = {step.id for step in run.steps}
        wait_until(lambda: steps <= {span.span for span in self.spans(run.trace)}, "every step's span has arrived")
        # a caller in another process may have begun before the run, and its spans may arrive later
        began_ns = min((step.start_ns for step in run.steps), default=run.start_ns) - _CALLER_NS
        with suppress(AssertionError):
            wait_until(lambda: not list(faults(self.exported(run.trace))), "the trace is whole", 30)
        assert_is_one_trace(self.exported(run.trace), began_ns=began_ns, ended_ns=time.time_ns())
        return self.spans(run.trace)

    def exported(self, trace: str) -> list[ExportedSpan]:
        """Return every span of one trace that has arrived, as it was exported."""
        return exported_spans(self._requests(), trace)

    def spans_called(self, name: str) -> list[EngineSpan]:
        """Return every span of this name that has arrived, of whatever trace."""
        return [span for span in self._all() if span.name == name]

    def _all(self) -> list[EngineSpan]:
        return [span for request in self._requests() for span in read_spans(request)]

    def _requests(self) -> list[ExportTraceServiceRequest]:
        received = httpx.get(f"{self.http}/test/session/traces", timeout=30).raise_for_status().json()
        return [ParseDict(each, ExportTraceServiceRequest()) for each in received]


@contextmanager
def otlp_backend(folder: Path) -> Iterator[OtlpBackend]:
    """Run a backend on free ports, with its log in `folder`."""
    backend = OtlpBackend(free_port(), free_port())
    command = [program("ddapm-test-agent", "ddapm-test-agent from PyPI"), "--host", "127.0.0.1"]
    for option, url in (("--otlp-http-port", backend.http), ("--otlp-grpc-port", backend.grpc)):
        command += [option, url.rpartition(":")[2]]
    with (folder / "otlp.log").open("wb") as log:
        process = subprocess.Popen([*command, "--port", str(free_port())], stdout=log, stderr=log, cwd=folder)
    try:
        wait_until(lambda: _answers(backend), "the OTLP backend answers")
        yield backend
    finally:
        process.terminate()
        process.wait(30)


def _answers(backend: OtlpBackend) -> bool:
    try:
        return httpx.get(f"{backend.http}/test/session/traces").is_success
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class Export:
    """One request that an `OtlpSink` received.

    Attributes:
        path: The path it was sent to.
        headers: Its headers, with lower-case names.
        content: The spans.
    """

    path: str
    headers: Mapping[str, str]
    content: ExportTraceServiceRequest


@dataclass(frozen=True)
class Push:
    """One request with metrics that an `OtlpSink` received.

    Attributes:
        path: The path it was sent to.
        headers: Its headers, with lower-case names.
        content: The metrics.
    """

    path: str
    headers: Mapping[str, str]
    content: ExportMetricsServiceRequest

    @property
    def resource(self) -> dict[str, str]:
        """The attributes of the resource that are text."""
        (resource,) = self.content.resource_metrics
        return {each.key: each.value.string_value for each in resource.resource.attributes}

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name."""
        (resource,) = self.content.resource_metrics
        return {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}


class OtlpSink:
    """A receiver of OTLP over HTTP in this process.

    Args:
        tls: With it, the receiver is reached over https.
        status: The status that it answers with.
        port: Its port; 0 picks a free one.

    Attributes:
        answer: Called with the number of the request, from 0; returns its status and headers, in place of `status`.
        content: What each response contains.
        moments: When each request arrived, in seconds of the monotonic clock.
        exports: The requests with spans.
        pushes: The requests with metrics.
        answering: Requests are answered while this is set.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, status: int = 200, port: int = 0) -> None:
        self.exports: list[Export] = []
        self.answer: Callable[[int], tuple[int, Mapping[str, str]]] | None = None
        self.content = b""
        self.moments: list[float] = []
        self.pushes: list[Push] = []
        self.status = status
        self.answering = threading.Event()
        self.answering.set()
        self._refusals: int | None = None
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                match self.headers.get("Content-Encoding"):
                    case "gzip":
                        body = gzip.decompress(body)
                    case "deflate":
                        body = zlib.decompress(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, more = sink._receive(self.path, headers, body)
                sink.answering.wait()
                content = sink.content
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                if content.startswith(b"{"):
                    self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class SinkServer(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that rejects the certificate

        self._server = SinkServer(("127.0.0.1", port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def _receive(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Mapping[str, str]]:
        """Keep a request, or refuse it; return the status and the headers of the answer."""
        if self._refusals is not None:
            self._refusals -= 1
            self.status = self.status if self._refusals >= 0 else httpx.codes.OK
        self.moments.append(time.monotonic())
        status, more = (self.status, {}) if self.answer is None else self.answer(len(self.moments) - 1)
        if status == httpx.codes.OK and path.endswith("/metrics"):
            self.pushes.append(Push(path, headers, ExportMetricsServiceRequest.FromString(body)))
        elif status == httpx.codes.OK:
            self.exports.append(Export(path, headers, ExportTraceServiceRequest.FromString(body)))
        return status, more

    def accept_after(self, refusals: int) -> None:
        """Answer the next requests with the sink's status, and all that follow with 200."""
        self._refusals = refusals

    @property
    def spans(self) -> list[Span]:
        """Every span that has arrived."""
        exports = tuple(self.exports)
        return [
            span
            for export in exports
            for of_resource in export.content.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    @property
    def resources(self) -> list[dict[str, str | int]]:
        """The attributes of each span's resource, in the order of `spans`."""
        exports = tuple(self.exports)
        return [
            {each.key: each.value.string_value or each.value.int_value for each in of_resource.resource.attributes}
            for export in exports
            for of_resource in export.content.resource_spans
            for of_scope in of_resource.scope_spans
            for _ in of_scope.spans
        ]

    def close(self) -> None:
        """Stop receiving."""
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def otlp_sink(tls: ssl.SSLContext | None = None, status: int = 200, port: int = 0) -> Iterator[OtlpSink]:
    """Run an `OtlpSink`."""
    sink = OtlpSink(tls, status, port)
    try:
        yield sink
    finally:
        sink.close()


@dataclass(frozen=True)
class Authority:
    """A certificate authority of a test, and what it has signed, as files.

    Attributes:
        certificate: The authority's own certificate.
        server_certificate: The certificate of a server on 127.0.0.1.
        server_key: Its key.
        client_certificate: The certificate of a client.
        client_key: Its key.
    """

    certificate: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path

    @classmethod
    def made_in(cls, folder: Path) -> Authority:
        """Return a new authority whose files are in `folder`."""

        def openssl(*arguments: object) -> None:
            subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=folder)

        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")  # quicker to make than RSA
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # Python 3.13 accepts no authority without it
        openssl(
            "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority", *usage
        )
        (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
        for name in ("server", "client"):
            openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions")
            openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
        names = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")
        return cls(*(folder / name for name in names))

    def server_context(self, *, mutual: bool = False) -> ssl.SSLContext:
        """Return what a server needs for TLS; with `mutual` it demands a certificate of its client."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_certificate, self.server_key)
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.certificate)
        return context
