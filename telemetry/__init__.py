"""Carrying what observers saw out of the process: spans, metrics, the engine's own spans, the HTTP service, the journal.

This room knows what a step is, from `phasebus.bus`, and nothing of downloads, engines or Ray. What things are called
outside stands in one file: `names`.
"""

from phasebus.telemetry._telemetry import Telemetry
from phasebus.telemetry.collector import Collector
from phasebus.telemetry.metrics import Metrics
from phasebus.telemetry.redaction import redact, redact_value
from phasebus.telemetry.relay import EngineSpan, Notice, Relay, StepNotice
from phasebus.telemetry.run import RunIdentity
from phasebus.telemetry.service import PortTakenError
from phasebus.telemetry.status import RunningStep, RunningSteps, Status
from phasebus.telemetry.timeline import LiveStep, Timeline
from phasebus.telemetry.tracing import Tracing

__all__ = [
    "Collector",
    "EngineSpan",
    "LiveStep",
    "Metrics",
    "Notice",
    "PortTakenError",
    "Relay",
    "RunIdentity",
    "RunningStep",
    "RunningSteps",
    "Status",
    "StepNotice",
    "Telemetry",
    "Timeline",
    "Tracing",
    "redact",
    "redact_value",
]
