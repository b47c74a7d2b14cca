"""OpenTelemetry as every other program uses it: its standard variables, samplers, resources and exporters.

Importing this package imports the SDK, also where a variable that the SDK reads at its import has a value that it rejects.
"""

from phasebus.telemetry.otel.queue import SpanQueue
from phasebus.telemetry.otel.rejections import CollectorExporter, Rejections
from phasebus.telemetry.otel.resource import process_resource, run_resource
from phasebus.telemetry.otel.sampling import TraceSampler
from phasebus.telemetry.otel.settings import MetricSettings, SpanBatches, TraceSettings

__all__ = [
    "CollectorExporter",
    "MetricSettings",
    "Rejections",
    "SpanBatches",
    "SpanQueue",
    "TraceSampler",
    "TraceSettings",
    "process_resource",
    "run_resource",
]
