"""The event bus: typed events, ordered subscribers that share a context and may change it, observers that only look.

This room knows nothing of models, Ray, vLLM or telemetry, and needs nothing but anyio. Start reading at `_dispatch`.
"""

from phasebus.bus._bus import Bus
from phasebus.bus._context import Change, Context, ReadableContext
from phasebus.bus._errors import (
    BusStateError,
    CallbackSignatureError,
    CallbackTimeoutError,
    ConflictError,
    ContextClosedError,
    EventError,
    InvalidValueError,
    NestingError,
    OptionError,
    OrderError,
    PhasebusError,
    WrongThreadError,
)
from phasebus.bus._events import Event, PhaseEvent, phase_event
from phasebus.bus._handling import current_event
from phasebus.bus._keys import Key
from phasebus.bus._observers import Observation, Observer
from phasebus.bus._order import Stage
from phasebus.bus._outcome import Outcome, Result
from phasebus.bus._runner import CallbackRunner, subscribe_all
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._step_events import (
    CALLBACK,
    AttributeValue,
    CallbackFailed,
    CallbackFinished,
    CallbackStarted,
    StepEvent,
    StepFailed,
    StepFinished,
    StepKind,
    StepOutcome,
    StepProgress,
    StepsCounted,
    StepStarted,
)
from phasebus.bus._steps import Step, current_step, new_step_id, new_trace_id, outcome_of
from phasebus.bus._streams import Stream
from phasebus.bus._subscription import Retry, Subscription
from phasebus.bus._threads import Threads
from phasebus.bus._view import ReadOnlyContext, View

__all__ = [
    "CALLBACK",
    "AttributeValue",
    "Bus",
    "BusStateError",
    "CallbackFailed",
    "CallbackFinished",
    "CallbackRunner",
    "CallbackSignatureError",
    "CallbackStarted",
    "CallbackTimeoutError",
    "Change",
    "ConflictError",
    "Context",
    "ContextClosedError",
    "Event",
    "EventError",
    "InvalidValueError",
    "Key",
    "NestingError",
    "Observation",
    "Observer",
    "OptionError",
    "OrderError",
    "Outcome",
    "PhaseEvent",
    "PhasebusError",
    "ReadOnlyContext",
    "ReadableContext",
    "Result",
    "Retry",
    "Stage",
    "Step",
    "StepEvent",
    "StepFailed",
    "StepFinished",
    "StepKind",
    "StepOutcome",
    "StepProgress",
    "StepStarted",
    "StepsCounted",
    "Stream",
    "SubscriberStats",
    "Subscription",
    "Threads",
    "View",
    "WrongThreadError",
    "current_event",
    "current_step",
    "new_step_id",
    "new_trace_id",
    "outcome_of",
    "phase_event",
    "subscribe_all",
]
