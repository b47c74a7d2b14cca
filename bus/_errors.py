"""The errors of phasebus: one small tree, `PhasebusError` at its top."""

from __future__ import annotations


class PhasebusError(Exception):
    """Base of every error phasebus raises on purpose.

    Its message names the thing, the value and the way out, and can be shown to a person as it is.
    """


class CallbackSignatureError(PhasebusError, TypeError):
    """Raised when subscribing something that no form of callback fits."""


class EventError(PhasebusError, TypeError):
    """Raised when something is used as an event, as a class of events or as a context that is none."""


class OptionError(PhasebusError, ValueError):
    """Raised when an option has a value that it cannot have, where the option is given."""


class OrderError(PhasebusError, ValueError):
    """Raised when subscribing with a `before` or `after` that is unknown or closes a cycle."""


class CallbackTimeoutError(PhasebusError, TimeoutError):
    """Raised when a callback took longer than the `timeout` it was subscribed with.

    A cancellation from outside is never turned into this.
    """


class ConflictError(PhasebusError):
    """Raised when a second callback writes a context key whose rule allows one writer an event."""


class InvalidValueError(PhasebusError, ValueError):
    """Raised when a callback writes a value that the key's `validate` refuses."""


class ContextClosedError(PhasebusError, RuntimeError):
    """Raised when a callback that failed or timed out goes on writing to its context."""


class BusStateError(PhasebusError, RuntimeError):
    """Raised when a bus is used before it was opened, after it was closed, or twice at once."""


class WrongThreadError(PhasebusError, RuntimeError):
    """Raised when `Bus.publish` is used outside the bus's thread; `Bus.threads` is the way in."""


class NestingError(PhasebusError, RecursionError):
    """Raised when publishes that caused one another go deeper than the bus allows."""
