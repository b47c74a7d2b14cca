"""Errors of phase lists and their configurations."""

from __future__ import annotations

from phasebus.bus import PhasebusError


class ConfigError(PhasebusError):
    """Raised when a configuration cannot be read or is not valid."""


class CallbackError(PhasebusError):
    """Raised when a callback made a mistake, such as misspelling a key or calling ``sys.exit``."""


class UnexpectedCancellationError(PhasebusError):
    """Raised when a callback or a phase's work was cancelled although nothing outside it requested that."""


class PhaseError(PhasebusError):
    """Raised when a phase that applied has not finished, although no error was raised."""
