"""A real OTLP backend: what is exported to it can be read back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from phasebus.telemetry import EngineSpan
from phasebus.telemetry.journal import Run
from phasebus.telemetry.relay import read_spans
from tests.support.programs import free_port, program
from tests.support.waiting import wait_until


class OtlpBackend:
    """A running ddapm-test-agent, spoken to over HTTP and gRPC."""

    def __init__(self, http_port: int, grpc_port: int) -> None:
        self.http = f"http://127.0.0.1:{http_port}"
        self.grpc = f"http://127.0.0.1:{grpc_port}"

    def spans(self, trace: str) -> list[EngineSpan]:
        """Return every span of one trace that has arrived."""
        return [span for span in self._all() if span.trace == trace]

    def spans_of(self, run: Run) -> list[EngineSpan]:
        """Return the spans of a run's trace, once every step of its journal has one."""
        steps = {step.id for step in run.steps}
        wait_until(lambda: steps <= {span.span for span in self.spans(run.trace)}, "every step's span has arrived")
        return self.spans(run.trace)

    def spans_called(self, name: str) -> list[EngineSpan]:
        """Return every span of this name that has arrived, of whatever trace."""
        return [span for span in self._all() if span.name == name]

    def _all(self) -> list[EngineSpan]:
        requests = httpx.get(f"{self.http}/test/session/traces", timeout=30).raise_for_status().json()
        return [span for each in requests for span in read_spans(ParseDict(each, ExportTraceServiceRequest()))]


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
