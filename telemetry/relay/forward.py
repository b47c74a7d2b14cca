"""Handing OTLP requests on to the user's collector, in a thread that nobody waits for."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from phasebus.telemetry.collector import Collector
from phasebus.telemetry.redaction import redact

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

logger = logging.getLogger("phasebus.telemetry")

_TRIES = 3


class Forwarder:
    """Sends requests to a collector, in the order they came; drops and counts what finds no room or is not taken.

    Args:
        collector: Where to; None drops nothing and sends nothing.
        limit: How many requests may wait.
    """

    def __init__(self, collector: Collector | None, limit: int = 256) -> None:
        self._collector = collector
        self._waiting: queue.Queue[ExportTraceServiceRequest | None] = queue.Queue(limit)
        self._closing = threading.Event()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="phasebus relay forwarding", daemon=True)
        if collector is not None:
            self._thread.start()

    def send(self, request: ExportTraceServiceRequest) -> None:
        """Have `request` sent; never waits."""
        if self._collector is None:
            return
        try:
            self._waiting.put_nowait(request)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Send what is left, for as long as `Collector.wait_for_flush` waits."""
        if self._collector is not None:
            self._closing.set()
            with suppress(queue.Full):
                self._waiting.put_nowait(None)  # wakes the thread; where there is no room, it is awake
            self._collector.wait_for_flush(self._thread)

    def _run(self) -> None:
        assert self._collector is not None  # noqa: S101  # the thread is started only with one
        send = _grpc_sender(self._collector) if self._collector.protocol == "grpc" else _http_sender(self._collector)
        told = False
        while not (self._closing.is_set() and self._waiting.empty()) and (request := self._waiting.get()) is not None:
            for tried in range(1, _TRIES + 1):
                try:
                    send(request)
                    break
                except Exception as error:  # noqa: BLE001  # whatever it is, it must not reach the start-up
                    if tried == _TRIES:
                        self.dropped += 1
                        if not told:
                            told = True
                            where = redact(self._collector.endpoint)
                            logger.warning(
                                "the engine's spans cannot be handed on to %s: %s", where, redact(str(error))
                            )
                    else:
                        time.sleep(0.1 * tried)


def _http_sender(collector: Collector) -> Callable[[ExportTraceServiceRequest], None]:
    import httpx

    client = httpx.Client(timeout=collector.timeout, headers=dict(collector.headers))

    def send(request: ExportTraceServiceRequest) -> None:
        headers = {"Content-Type": "application/x-protobuf"}
        client.post(collector.endpoint, content=request.SerializeToString(), headers=headers).raise_for_status()

    return send


def _grpc_sender(collector: Collector) -> Callable[[ExportTraceServiceRequest], None]:
    import grpc
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

    scheme, _, address = collector.endpoint.rpartition("://")
    secure = scheme == "https"
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials()) if secure else grpc.insecure_channel(address)
    stub = TraceServiceStub(channel)  # type: ignore[no-untyped-call]
    headers = tuple(collector.headers.items())

    def send(request: ExportTraceServiceRequest) -> None:
        stub.Export(request, timeout=collector.timeout, metadata=headers)

    return send
