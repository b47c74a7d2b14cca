"""The phases of a cluster's start-up that are its own; placement has the same events as that of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from phasebus.bus import PhasebusError, PhaseEvent, StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PreCluster(PhaseEvent):
    """Published on the driver before anything else: what is written now, every node finds in its context."""

    phase: ClassVar[str] = "pre_cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostCluster(PhaseEvent):
    """Published on the driver when every node is ready, and what they changed has been merged."""

    phase: ClassVar[str] = "post_cluster"


CLUSTER = StepKind("cluster")


class NodeLostError(PhasebusError):
    """Raised when the process of a node, or the machine below it, went away or fell silent."""


class NodeConflictError(PhasebusError):
    """Raised when callbacks on two nodes wrote different values to a key that has no rule to merge them."""
