"""The relay: a loopback receiver for the spans an engine exports by itself.

Each request is handed on, as it came, to the user's collector; its spans are also read, for those who asked for them.
"""

from phasebus.telemetry.relay.forward import Forwarder
from phasebus.telemetry.relay.iterations import IterationMetrics
from phasebus.telemetry.relay.notices import IterationsNotice, StepNotice
from phasebus.telemetry.relay.receiver import Relay
from phasebus.telemetry.relay.spans import EngineSpan, read_spans

__all__ = ["EngineSpan", "Forwarder", "IterationMetrics", "IterationsNotice", "Relay", "StepNotice", "read_spans"]
