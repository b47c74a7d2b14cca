"""The public names of `phasebus.telemetry`, with all that they import."""

from phasebus.telemetry._telemetry import Telemetry
from phasebus.telemetry.collector import Collector
from phasebus.telemetry.live_step import LiveStep
from phasebus.telemetry.metrics import Metrics
from phasebus.telemetry.redaction import redact, redact_value
from phasebus.telemetry.relay import EngineSpan, Notice, Relay, StepNotice
from phasebus.telemetry.run import RunIdentity
from phasebus.telemetry.running_steps import RunningSteps
from phasebus.telemetry.service import PortTakenError
from phasebus.telemetry.status import Status
from phasebus.telemetry.timeline import Timeline
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
    "RunningSteps",
    "Status",
    "StepNotice",
    "Telemetry",
    "Timeline",
    "Tracing",
    "redact",
    "redact_value",
]
