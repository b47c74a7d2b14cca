"""The phases and errors of a cluster's start. The placement has the same events as in the start of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from phasebus.bus import PhasebusError, PhaseEvent, StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PreCluster(PhaseEvent):
    """Published on the driver before anything else. Every node's context contains the values that callbacks write here."""

    phase: ClassVar[str] = "pre_cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostCluster(PhaseEvent):
    """Published on the driver when every node is ready and the changes of all nodes have been merged."""

    phase: ClassVar[str] = "post_cluster"


CLUSTER = StepKind("cluster")


class NodeLostError(PhasebusError):
    """Raised when the process of a node, or its machine, has died or does not answer."""


class NodeConflictError(PhasebusError):
    """Raised when callbacks on two nodes wrote different values to a key without a rule to merge them."""
