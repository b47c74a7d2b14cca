"""What can go wrong with a cluster, beyond what can go wrong with a node."""

from __future__ import annotations

from phasebus.bus import PhasebusError


class NodeLostError(PhasebusError):
    """Raised when the process of a node, or the machine below it, went away or fell silent."""


class NodeConflictError(PhasebusError):
    """Raised when callbacks on two nodes wrote different values to a key that has no rule to merge them."""
