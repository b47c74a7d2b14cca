"""What an engine does of OpenTelemetry: spans by the SDK's own exporter, and a notice that it is ready.

vLLM's processes do the same (vllm/tracing/otel.py): a provider of their own, the exporter and the sampler by the variables,
the parent by TRACEPARENT.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


def main() -> None:
    provider = TracerProvider(resource=Resource.create({"vllm.process_id": os.getpid()}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    parent = TraceContextTextMapPropagator().extract({"traceparent": os.environ["TRACEPARENT"]})
    with trace.get_tracer("vllm").start_as_current_span("Load weights", parent):
        pass
    provider.shutdown()
    ready = {"event": "ready", "step": "f" * 16, "name": "ready", "time_ns": time.time_ns(), "process": "front_end"}
    request = urllib.request.Request(
        os.environ["PHASEBUS_STEPS_URL"],
        json.dumps({**ready, "pid": os.getpid()}).encode(),
        {
            "Content-Type": "application/x-ndjson",
            "Authorization": f"Bearer {os.environ['PHASEBUS_RELAY_TOKEN']}",
        },
    )
    urllib.request.urlopen(request).close()
    time.sleep(float(os.environ.get("ENGINE_SECONDS", "1")))


main()
