"""What can be wrong with what a start-up, or any other phase list, is given."""

from __future__ import annotations

from phasebus.bus import PhasebusError


class ConfigError(PhasebusError):
    """Raised when a configuration cannot be read, or says what cannot be meant."""


class CallbackError(PhasebusError):
    """Raised when a callback did what can only be a mistake, such as misspelling a key or calling ``sys.exit``."""
