"""The relay: a loopback receiver for the spans and notices that an engine's processes export.

What it receives is checked, forwarded to the user's collector, and given to the listeners of this process.
"""

from phasebus.telemetry.relay.forward import SpanForwarder
from phasebus.telemetry.relay.notices import Notice, NoticeReader, StepNotice
from phasebus.telemetry.relay.receiver import Relay
from phasebus.telemetry.relay.spans import EngineSpan, read_spans

__all__ = ["EngineSpan", "Notice", "NoticeReader", "Relay", "SpanForwarder", "StepNotice", "read_spans"]
