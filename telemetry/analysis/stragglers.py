"""Stragglers: the slowest node of each phase, against all the others."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from phasebus.telemetry.analysis.nesting import PlacedStep, walk
from phasebus.telemetry.journal import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    """The slowest node at one sort of step.

    Attributes:
        kind: The kind of step.
        name: Its name; "" for a node as a whole.
        node: The slowest node.
        seconds: How long it took there.
        median: The median over all nodes, in seconds.
        nodes: How many nodes had such a step.
    """

    kind: str
    name: str
    node: str
    seconds: float
    median: float
    nodes: int

    @property
    def behind(self) -> float:
        """How much longer it took there than on the median node, in seconds."""
        return self.seconds - self.median


def stragglers(run: Run, kinds: tuple[str, ...] = ("node", "phase", "engine", "engine_step")) -> tuple[Straggler, ...]:
    """Return the slowest node for every sort of step that ran on at least two, the one furthest behind first.

    Where a node did the same several times, they count together.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    for at in walk(run):
        if at.step.kind in kinds and at.node:
            nodes = found.setdefault((at.step.kind, _name(at)), {})
            nodes[at.node] = nodes.get(at.node, 0.0) + at.seconds
    rows = [_slowest(kind, name, nodes) for (kind, name), nodes in found.items() if len(nodes) > 1]
    return tuple(sorted(rows, key=lambda row: -row.behind))


def _name(at: PlacedStep) -> str:
    return "" if at.step.kind == "node" else at.step.name


def _slowest(kind: str, name: str, nodes: dict[str, float]) -> Straggler:
    node, seconds = max(nodes.items(), key=lambda item: item[1])
    return Straggler(kind=kind, name=name, node=node, seconds=seconds, median=median(nodes.values()), nodes=len(nodes))
