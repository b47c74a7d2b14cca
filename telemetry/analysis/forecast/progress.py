"""How far a start is: which steps have begun and ended, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

_NAMELESS: Final = ("cluster", "node", "engine", "download", "listing")
"""Kinds whose names are those of a host, an engine or a model: the same step has another one in a similar start."""


class StepKey(NamedTuple):
    """What makes a step of one start that of another one.

    Attributes:
        node: The node, in a start of several; "" otherwise.
        kind: The kind.
        name: The name; "" for kinds of which a node has one.
        process: The process of an engine's step; "" for others.
    """

    node: str
    kind: str
    name: str
    process: str


class Milestone(NamedTuple):
    """The begin or the end of a step.

    Attributes:
        step: The step.
        ended: Whether it is the end.
    """

    step: StepKey
    ended: bool


def key_of(kind: str, name: str, node: str, attributes: Mapping[str, Any]) -> StepKey:
    """Return the key of a step; `node` is "" in a start of one node."""
    return StepKey(node, kind, "" if kind in _NAMELESS else name, str(attributes.get("process", "")))


@dataclass(slots=True)
class Progress:
    """The milestones that a start has reached, and the steps that run.

    Attributes:
        reached: When each milestone was reached first, in seconds after the begin of the start.
        running: When each running step began, likewise.
        left: How long a running step that reports its progress will still take, in seconds.
        cpu: The CPU time that the process of a running step has used since the step began, in seconds, where that is known.
        busyness: How many processes competed for each CPU when the start began.
    """

    reached: dict[Milestone, float] = field(default_factory=dict)
    running: dict[StepKey, float] = field(default_factory=dict)
    left: dict[StepKey, float] = field(default_factory=dict)
    cpu: dict[StepKey, float] = field(default_factory=dict)
    busyness: float = 1.0

    def begin(self, step: StepKey, at: float) -> None:
        """Record the begin of a step, `at` seconds after that of the start."""
        self.reached.setdefault(Milestone(step, ended=False), at)
        self.running[step] = at

    def end(self, step: StepKey, at: float) -> None:
        """Record the end of a step."""
        self.reached.setdefault(Milestone(step, ended=True), at)
        self.running.pop(step, None)
        self.left.pop(step, None)
        self.cpu.pop(step, None)
