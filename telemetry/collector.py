"""The user's collector: its address and options, from OpenTelemetry's standard environment variables."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from inspect import signature
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Literal, TypeVar, cast
from urllib.parse import urlsplit

from phasebus.telemetry.otel.findings import Findings
from phasebus.telemetry.otel.otlp_variables import DEFAULT_SECONDS, OtlpVariables, flaw_of_endpoint, signal_url
from phasebus.telemetry.otel.settings import MetricSettings, TraceSettings
from phasebus.telemetry.proxies import proxy_for

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter
    from requests import Response, Session

    from phasebus.telemetry.otel import Rejections

E = TypeVar("E")

Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip", "deflate"]

SHUTDOWN_FLUSH_SECONDS = 1.5
"""Maximum duration of the last export to an unreachable collector, in seconds."""

_REFUSED_SECONDS = 0.8
"""The part of it after which a collector that refuses connections counts as unreachable, in seconds."""

_MORE_SECONDS = 3.5
"""Additional time for a collector that can be reached, in seconds."""

_DEFAULT_ENDPOINTS: Mapping[str, str] = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}
_CREDENTIAL_PROVIDERS = tuple(
    f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{signal}CREDENTIAL_PROVIDER" for signal in ("", "TRACES_", "METRICS_")
)
"""The variables that name what provides the exporter's session."""


def guarded(session: Session, headers: Mapping[str, str]) -> Session:
    """Return `session`, which from now on follows no redirect, and sends no password of ``.netrc`` in place of `headers`.

    A response with a redirect is a failure. The headers for a collector are usually secrets, and `requests` removes only
    ``Authorization`` on the way to another host; exporters before OpenTelemetry 1.45 let it follow. It also replaces an
    ``Authorization`` that it was given by what ``.netrc`` has for the host, or for any (``default``).
    """

    def follow_none(*_: object, **__: object) -> Generator[Response, None, None]:
        yield from ()

    session.resolve_redirects = follow_none  # type: ignore[method-assign]
    if any(name.lower() == "authorization" for name in headers):
        session.auth = lambda request: request
    return session


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """A collector that receives OTLP.

    Attributes:
        protocol: Its protocol.
        endpoint: For HTTP the whole URL of its traces or metrics, for gRPC its address.
        headers: What each request carries; usually secrets.
        timeout: How long a request may take, in seconds.
        compression: How requests are compressed; ``deflate`` with HTTP only.
        certificate: The file with the certificates of the authority that the collector's is checked against.
        client_key: The file with the private key of this client, for mutual TLS.
        client_certificate: The file with the certificates of this client.
        insecure: Whether a gRPC address is reached without TLS; a scheme has precedence over the variable.
        rejected: The variables that the SDK must not read, because their values have been rejected.
    """

    protocol: Protocol
    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = DEFAULT_SECONDS
    compression: Compression = "none"
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    insecure: bool = False
    rejected: frozenset[str] = frozenset()

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] = os.environ,
        settings: TraceSettings | MetricSettings | None = None,
        findings: Findings | None = None,
    ) -> Collector | None:
        """Return the collector of traces, or of metrics, that the OTEL_* variables name.

        None if they name none, or turn the export off, or name an address that is no URL. OTEL_TRACES_EXPORTER=otlp and
        OTEL_METRICS_EXPORTER=otlp name the standard's default address on this machine.

        Args:
            environment: Where the variables are read from.
            settings: What `TraceSettings`, which is the default, or `MetricSettings` has read from it.
            findings: Where problems are added.

        Source: OpenTelemetry specification, "OTLP exporter configuration". The default protocol is http/protobuf.
        """
        findings = findings or Findings()
        settings = settings or TraceSettings.from_environment(environment)
        signal = "metrics" if isinstance(settings, MetricSettings) else "traces"
        read = OtlpVariables(environment, findings, signal.upper())
        if settings.disabled or "otlp" not in settings.exporters:
            return None
        if not read("ENDPOINT") and not settings.explicit:
            return None
        protocol = read.choice("PROTOCOL", ("http/protobuf", "grpc"))
        endpoint = read("ENDPOINT") or _DEFAULT_ENDPOINTS[protocol]
        if (flaw := flaw_of_endpoint(endpoint, protocol)) is not None:
            findings.reject(read.variable("ENDPOINT"), endpoint, flaw, "no collector")
            return None
        scheme = urlsplit(endpoint).scheme
        if protocol == "http/protobuf" and not environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"):
            endpoint = signal_url(endpoint, signal, findings)
        compressions = ("none", "gzip") if protocol == "grpc" else ("none", "gzip", "deflate")
        collector = cls(
            protocol=cast("Protocol", protocol),
            endpoint=endpoint,
            headers=read.headers(),
            timeout=read.seconds("TIMEOUT"),
            compression=cast("Compression", read.choice("COMPRESSION", compressions)),
            certificate=read.file("CERTIFICATE"),
            client_key=read.file("CLIENT_KEY"),
            client_certificate=read.file("CLIENT_CERTIFICATE"),
            insecure=scheme == "http" or (scheme != "https" and read("INSECURE").lower() == "true"),
        )
        return replace(collector, rejected=frozenset(findings.rejected))

    def wait_for_flush(self, sending: Thread) -> None:
        """Wait for `sending`, a thread that exports what is left: for 1.5 s, or 5 s if the collector can be reached.

        The last spans are the outermost ones, without which a trace has no root, so a slow collector gets more time; a
        collector that is away must not delay the end, and gets 0.8 s if it refuses connections.
        """
        reached, probed = Event(), Event()
        Thread(target=self._reach, args=(reached, probed), name="phasebus collector probe", daemon=True).start()
        sending.join(_REFUSED_SECONDS)
        if sending.is_alive() and (reached.is_set() or not probed.is_set()):
            sending.join(SHUTDOWN_FLUSH_SECONDS - _REFUSED_SECONDS)
        if sending.is_alive() and reached.is_set():
            sending.join(_MORE_SECONDS)

    def exporter(self) -> SpanExporter:
        """Return the SDK's exporter of spans to this collector, which counts the spans that the collector rejects.

        A collector on loopback is reached directly, whatever the proxy variables say.
        """
        from phasebus.telemetry.otel import CollectorExporter, Rejections
        from phasebus.telemetry.otel.sdk import without_fork_handlers

        rejections = Rejections()
        if self.protocol == "grpc":
            with without_fork_handlers():
                from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

                exporter: SpanExporter = self._grpc_exporter(GrpcExporter)
            rejections.of_grpc(exporter)
        else:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

            exporter = self._http_exporter(HttpExporter, rejections)
        return CollectorExporter(exporter, rejections)

    def metric_exporter(self) -> MetricExporter:
        """Return the SDK's exporter of metrics to this collector, which is reached as by `exporter`."""
        if self.protocol == "grpc":
            from phasebus.telemetry.otel.sdk import without_fork_handlers

            with without_fork_handlers():
                from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

                return self._grpc_exporter(GrpcExporter)
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

        from phasebus.telemetry.otel.metric_exporter import CollectorMetricExporter
        from phasebus.telemetry.otel.rejections import Rejections

        rejections = Rejections()
        return CollectorMetricExporter(self._http_exporter(HttpExporter, rejections), rejections)

    def _http_exporter(self, make: Callable[..., E], rejections: Rejections | None = None) -> E:
        import requests
        from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression

        from phasebus.telemetry.otel.sdk import without_own_metrics, without_variables

        session = None
        if self._is_loopback() or not any(os.environ.get(name) for name in _CREDENTIAL_PROVIDERS):
            session = guarded(requests.Session(), self.headers)
            session.trust_env = not self._is_loopback()
            if rejections is not None:
                rejections.of_session(session)
        with without_variables(self._unread()):
            return make(
                endpoint=self.endpoint,
                headers=dict(self.headers),
                timeout=self.timeout,
                compression=HttpCompression(self.compression),
                certificate_file=self.certificate,
                client_key_file=self.client_key,
                client_certificate_file=self.client_certificate,
                session=session,
                **without_own_metrics(make),
            )

    def _grpc_exporter(self, make: Callable[..., E]) -> E:
        import grpc

        from phasebus.telemetry.otel.sdk import without_own_metrics, without_variables

        credentials = None
        if self.certificate or self.client_certificate:
            credentials = grpc.ssl_channel_credentials(
                _content(self.certificate), _content(self.client_key), _content(self.client_certificate)
            )
        more = without_own_metrics(make)
        if self._is_loopback() and "channel_options" in signature(make).parameters:  # older SDKs have none
            more["channel_options"] = (("grpc.enable_http_proxy", 0),)
        with without_variables(self._unread()):
            return make(
                endpoint=self.endpoint,
                insecure=self.insecure,
                credentials=credentials,
                headers=dict(self.headers),
                timeout=self.timeout,
                compression=grpc.Compression.Gzip if self.compression == "gzip" else grpc.Compression.NoCompression,
                **more,
            )

    def _unread(self) -> Iterable[str]:
        """Return the variables that the SDK must not read while it makes an exporter.

        It reads some of them in addition to the arguments. It would raise for a value that has been rejected, or log it, and
        that may be a secret; for an empty value, which stands for none, it raises, too.
        """
        empty = (name for name, value in os.environ.items() if name.startswith("OTEL_EXPORTER_OTLP_") and not value)
        return {*self.rejected, *empty}

    def is_at(self, endpoint: str) -> bool:
        """Return whether `endpoint` is on this collector's host, whatever its port: collectors have one for each protocol."""
        with suppress(ValueError):
            return _address(endpoint)[1] == _address(self.endpoint)[1] != ""
        return False

    def _is_loopback(self) -> bool:
        try:
            _, host, _ = _address(self.endpoint)
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            return False

    def _reach(self, reached: Event, probed: Event) -> None:
        """Connect to the collector, or to the proxy that leads there; set `probed` at the end."""
        with suppress(OSError, ValueError):
            scheme, host, port = _address(self.endpoint)
            proxy = None if self._is_loopback() else _proxy(scheme, host, port)
            socket.create_connection(proxy or (host, port), timeout=SHUTDOWN_FLUSH_SECONDS).close()
            reached.set()
        probed.set()


def _address(endpoint: str) -> tuple[str, str, int]:
    """Return scheme, host and port.

    Raises:
        ValueError: The port is no number.
    """
    url = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    return url.scheme or "http", url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def _content(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _proxy(scheme: str, host: str, port: int) -> tuple[str, int] | None:
    address = proxy_for(scheme, host, port)
    proxy = urlsplit(address if address is None or "://" in address else f"//{address}")
    return None if not proxy.hostname else (str(proxy.hostname), proxy.port or 80)
