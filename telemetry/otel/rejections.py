"""The responses of a collector that OpenTelemetry's exporters do not read, or take for a success.

These are responses that reject some of the spans ("partial success" in the OTLP specification), redirects, and the web pages
that other servers answer with.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from phasebus.telemetry.redaction import redact

if TYPE_CHECKING:
    from requests import Response, Session


_TOO_LARGE = 413
_MOST_CHARACTERS = 200
_IDLE_SECONDS = 30.0
"""Time without a request after which a kept connection is not used again: load balancers drop those without a word."""

_UNTRUSTED = re.compile(r"certificate verify failed: ([^(]{1,200})")
_SYSTEM_ERROR = re.compile(r"\[Errno -?\d+\] ([A-Z][A-Za-z ]{1,80})")
_TLS_ERROR = re.compile(r"\[SSL: ([A-Z0-9_]{1,80})\]")


class RefusedError(Exception):
    """Raised when a server does not accept a request with spans.

    Attributes:
        too_large: Whether a request with fewer spans may be accepted.
    """

    def __init__(self, why: str, *, too_large: bool = False) -> None:
        super().__init__(why)
        self.too_large = too_large


class Rejections:
    """Counts rejected spans, from the responses to an exporter.

    Attributes:
        refusal: Why the last request was not accepted, without a response or with one; None if it was.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._why = ""
        self.refusal: RefusedError | None = None

    def take(self) -> tuple[int, str]:
        """Return the number of spans that were rejected since the last call, and the last reason."""
        with self._lock:
            number, self._number = self._number, 0
            return number, self._why

    def read(self, response: Any) -> None:
        """Count what an ``ExportTraceServiceResponse`` rejects; a response of another type rejects nothing."""
        partial: Any = getattr(response, "partial_success", None)
        number = getattr(partial, "rejected_spans", 0)
        if number > 0:
            with self._lock:
                self._number += number
                self._why = str(partial.error_message)

    def of_session(self, session: Session) -> Session:
        """Return `session`, after whose requests the responses and the errors are read."""
        session.hooks["response"].append(self._read_http)
        request = session.request
        last = time.monotonic()

        def observed(*args: Any, **kwargs: Any) -> Response:
            nonlocal last
            idle, last = time.monotonic() - last, time.monotonic()
            if idle > _IDLE_SECONDS:
                session.close()  # of its connections alone: a new one is opened
            try:
                return request(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  # raised again
                self.refusal = RefusedError(cause_of(error))
                raise _without_secrets(error) from None

        session.request = observed  # type: ignore[method-assign]
        return session

    def of_grpc(self, exporter: Any) -> None:
        """Read the responses to a gRPC exporter, which keeps a stub for its channel (SDK 1.27 to 1.45)."""
        make, client = getattr(exporter, "_stub", None), getattr(exporter, "_client", None)
        if make is None or client is None:
            return
        exporter._stub = lambda channel: _ReadingStub(make(channel), self)  # noqa: SLF001  # for a channel that is made anew
        exporter._client = _ReadingStub(client, self)  # noqa: SLF001

    def _read_http(self, response: Response, *_: object, **__: object) -> None:
        from google.protobuf.json_format import Parse
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        self.refusal = _refusal_of(response)
        if self.refusal is not None or not response.content:
            return
        with suppress(Exception):  # a collector may answer with anything
            if response.headers.get("Content-Type", "").startswith("application/json"):  # some do, also to protobuf
                self.read(Parse(response.content, ExportTraceServiceResponse(), ignore_unknown_fields=True))
            else:
                self.read(ExportTraceServiceResponse.FromString(response.content))


def _without_secrets(error: Exception) -> Exception:
    """Return an error of `requests` whose text, which the exporter logs, shows no secret in the query of the address."""
    from requests import RequestException

    text = str(error)
    redacted = redact(text)
    return type(error)(redacted) if redacted != text and isinstance(error, RequestException) else error


def cause_of(error: Exception) -> str:
    """Return the cause that the text of an error of `requests` has, besides addresses and names of classes."""
    text = str(error)
    if (matched := _UNTRUSTED.search(text)) is not None:
        return f"its certificate is rejected: {matched[1].strip()}"
    if (matched := _SYSTEM_ERROR.search(text) or _TLS_ERROR.search(text)) is not None:
        return matched[1]
    if type(error) is OSError:
        return text[:_MOST_CHARACTERS]  # such as a certificate that cannot be read
    return "it does not answer in time" if "Timeout" in type(error).__name__ else type(error).__name__


def _refusal_of(response: Response) -> RefusedError | None:
    if response.is_redirect or 300 <= response.status_code < 400:
        return RefusedError(f"it redirects, with HTTP {response.status_code}; name the address that it redirects to")
    if not response.ok:
        return RefusedError(f"it answers HTTP {response.status_code}", too_large=response.status_code == _TOO_LARGE)
    if response.headers.get("Content-Type", "").strip().lower().startswith("text/html"):
        return RefusedError("it answers with a web page; is this the address of a collector?")
    return None


def _refusal_of_grpc(error: Any) -> RefusedError | None:
    """Return why gRPC could not deliver a request; None if `error` is none of gRPC's."""
    try:
        code, details = str(error.code().name), str(error.details() or "")[:_MOST_CHARACTERS]
    except AttributeError:
        return None
    too_large = code == "RESOURCE_EXHAUSTED" and "larger than max" in details
    return RefusedError(f"{code}: {details}" if details else code, too_large=too_large)


class CollectorExporter(SpanExporter):
    """An exporter to a collector, together with what the collector has rejected.

    Args:
        exporter: The exporter of OpenTelemetry.
        rejections: What reads its responses.
    """

    def __init__(self, exporter: SpanExporter, rejections: Rejections) -> None:
        self._exporter = exporter
        self._rejections = rejections
        self.take_rejected = rejections.take

    @property
    def problem(self) -> str:
        """Why the last request was not accepted, also while the exporter tries again; "" if that is not known."""
        return str(self._rejections.refusal or "")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export `spans`.

        Raises:
            RefusedError: They were not accepted, and the cause is known.
        """
        self._rejections.refusal = None
        result = self._exporter.export(spans)
        if self._rejections.refusal is not None:
            raise self._rejections.refusal
        return result

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return True: nothing is buffered."""
        return True


class _ReadingStub:
    def __init__(self, stub: Any, rejections: Rejections) -> None:
        self._stub = stub
        self._rejections = rejections

    def Export(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802  # the name in OTLP's service
        try:
            response = self._stub.Export(*args, **kwargs)
        except Exception as error:
            self._rejections.refusal = refusal = _refusal_of_grpc(error)
            if refusal is not None and refusal.too_large:  # the exporter would only try again
                raise refusal from error
            raise
        self._rejections.refusal = None
        self._rejections.read(response)
        return response
