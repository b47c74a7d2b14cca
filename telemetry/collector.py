"""Where the user's collector is, by OpenTelemetry's standard environment variables."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Literal, cast
from urllib.parse import urlsplit

from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.util.re import parse_env_headers

from phasebus.bus import PhasebusError

Protocol = Literal["http/protobuf", "grpc"]

SHUTDOWN_FLUSH_SECONDS = 1.5
"""How long what is left may take to be sent at the end to a collector that is away."""

_MORE_SECONDS = 3.5
"""How much longer it may take with a collector that is there."""


class CollectorError(PhasebusError):
    """Raised when the OTEL_* variables ask for something that cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """A collector that takes OTLP.

    Attributes:
        protocol: How it is spoken to.
        endpoint: For HTTP the whole URL of its traces, for gRPC its address.
        headers: What each request carries; secrets, as a rule.
        timeout: How long a request may take, in seconds.
    """

    protocol: Protocol
    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Collector | None:
        """Return the collector that the OTEL_* variables name; None where they name none.

        Source: OpenTelemetry specification, "OTLP exporter configuration". The default protocol is http/protobuf.

        Raises:
            CollectorError: They name a protocol there is no exporter for, or a timeout that is no number.
        """

        def setting(name: str, default: str = "") -> str:
            return environment.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environment.get(
                f"OTEL_EXPORTER_OTLP_{name}", default
            )

        if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        if environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
            return None
        endpoint = setting("ENDPOINT")
        if not endpoint:
            return None
        protocol = setting("PROTOCOL", "http/protobuf")
        if protocol not in ("http/protobuf", "grpc"):
            raise CollectorError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; phasebus speaks 'http/protobuf' and 'grpc'"
            )
        timeout = setting("TIMEOUT", "10")
        try:
            seconds = float(timeout)
        except ValueError:
            raise CollectorError(f"OTEL_EXPORTER_OTLP_TIMEOUT is {timeout!r}; it is a number of seconds") from None
        if protocol == "http/protobuf" and not environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
            endpoint = endpoint.rstrip("/") + "/v1/traces"
        return cls(
            protocol=cast("Protocol", protocol),
            endpoint=endpoint,
            headers=parse_env_headers(setting("HEADERS"), liberal=True),
            timeout=seconds,
        )

    def wait_for_flush(self, sending: Thread) -> None:
        """Wait for `sending`, a thread that sends what is left: for 1.5 s, or 5 s if the collector can be reached.

        The last spans are the outermost ones, without which a trace has no root, so a slow collector is given time; but
        nobody wants to wait for one that is away.
        """
        reached = Event()
        Thread(target=self._reach, args=(reached,), name="phasebus collector probe", daemon=True).start()
        sending.join(SHUTDOWN_FLUSH_SECONDS)
        if sending.is_alive() and reached.is_set():
            sending.join(_MORE_SECONDS)

    def _reach(self, reached: Event) -> None:
        with suppress(OSError, ValueError):
            address = urlsplit(self.endpoint if "://" in self.endpoint else f"//{self.endpoint}")
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname or "", port), timeout=SHUTDOWN_FLUSH_SECONDS).close()
            reached.set()

    def exporter(self) -> SpanExporter:
        """Return an exporter of spans to this collector."""
        if self.protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

            insecure = not self.endpoint.startswith("https://")
            return GrpcExporter(endpoint=self.endpoint, insecure=insecure, timeout=self.timeout)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter(endpoint=self.endpoint, headers=dict(self.headers), timeout=self.timeout)
