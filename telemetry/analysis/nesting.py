"""The tree of a run's steps, with the node of each: the input of every other analysis.

No function here recurses, and none compares all steps with all others: a journal may hold any number of steps, at any depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from typing import Final

from phasebus.telemetry.journal import RecordedStep, Run

_PLACED_BY_TIME: Final = ("engine_step",)
_DIGITS: Final = "0123456789"
_WAITS: Final = "wait_for_"
"""What the names of steps begin with that only wait for other steps."""

_MAX_ACTIVE: Final = 64
"""How many of the steps that run on a node at the start of another one are considered as its place, the latest first."""

_MAX_CHECKS: Final = 256
"""How many steps around those that may be a step's place are considered."""


@dataclass(slots=True, kw_only=True, eq=False)
class PlacedStep:
    """A step at its place in the tree of a run.

    Attributes:
        step: The step.
        node: The node it ran on; "" for what belongs to no single one, such as the start of a cluster.
        depth: The number of steps it lies inside of.
        start_ns: Its start, in nanoseconds since the epoch.
        end_ns: Its end, or that of the journal, likewise.
        outer: The step it lies inside of; None at the top.
        inside: The steps directly inside it, by their start.
    """

    step: RecordedStep
    node: str
    depth: int
    start_ns: int
    end_ns: int
    outer: PlacedStep | None = field(default=None, repr=False)
    inside: list[PlacedStep] = field(default_factory=list, repr=False)

    @property
    def seconds(self) -> float:
        """Its duration, so far if it still runs, in seconds."""
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def waits(self) -> bool:
        """Whether it only waits: while another step runs beside it, the time is that step's."""
        return self.step.name.startswith(_WAITS) and not self.inside

    def walk(self) -> Iterator[PlacedStep]:
        """Yield the step and all that lies inside it, each before what is inside."""
        pending = [self]
        while pending:
            at = pending.pop()
            yield at
            pending += reversed(at.inside)

    def outward(self) -> Iterator[PlacedStep]:
        """Yield the step and those it lies inside of, from the inside out."""
        at: PlacedStep | None = self
        while at is not None:
            yield at
            at = at.outer


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncovered:
    """An interval of a step during which none of the steps inside it ran.

    Attributes:
        start_ns: Its start, in nanoseconds since the epoch.
        end_ns: Its end, likewise.
        after: The step inside that ended at its start; None at the start of the outer step.
        before: The step inside that began at its end; None at the end of the outer step.
    """

    start_ns: int
    end_ns: int
    after: PlacedStep | None
    before: PlacedStep | None


def nest(run: Run) -> tuple[PlacedStep, ...]:
    """Return the outermost steps of `run`, by their start, with all others inside them.

    A step lies inside its parent. The parents of an engine's steps are not reliable: some had ended before the step began,
    and some processes do not know theirs. They are placed by time: inside the shortest step of the engine that contains
    them, below the first ancestor that still ran.
    """
    steps = {step.id: step for step in run.steps}
    ends = {step.id: end_of(step, run) for step in run.steps}
    outer = _place_by_time(steps, _running_ancestors(steps, ends), ends)
    below: dict[str | None, list[RecordedStep]] = {}
    for step in run.steps:
        below.setdefault(outer[step.id], []).append(step)
    for each in below.values():
        each.sort(key=lambda step: (step.start_ns, -ends[step.id]))
    placed: set[str] = set()
    ordered = (*below.get(None, ()), *run.steps)  # those left over have parents that form a circle
    tops = [_build(step, below, ends, placed) for step in ordered if step.id not in placed]
    return tuple(sorted(tops, key=lambda top: (top.start_ns, -top.end_ns)))


def walk(run: Run) -> Iterator[PlacedStep]:
    """Yield every step of `run` in the order of a waterfall: each before what lies inside it."""
    for top in nest(run):
        yield from top.walk()


def end_of(step: RecordedStep, run: Run) -> int:
    """Return the end of `step`, or of the journal if it still runs; in nanoseconds since the epoch."""
    return max(step.start_ns, step.end_ns if step.end_ns is not None else run.end_ns)


def uncovered(at: PlacedStep) -> Iterator[Uncovered]:
    """Yield the intervals of `at` during which none of the steps inside it ran."""
    reached, last = at.start_ns, None
    for each in at.inside:
        if each.start_ns > reached:
            end = min(each.start_ns, at.end_ns)
            yield Uncovered(start_ns=reached, end_ns=end, after=last, before=each if each.start_ns == end else None)
        if each.end_ns > reached:
            reached, last = each.end_ns, each
        if reached >= at.end_ns:
            return
    yield Uncovered(start_ns=reached, end_ns=at.end_ns, after=last, before=None)


def own_seconds(at: PlacedStep) -> float:
    """Return how long none of the steps inside `at` ran, in seconds."""
    return sum(each.end_ns - each.start_ns for each in uncovered(at)) / 1e9


def _running_ancestors(steps: Mapping[str, RecordedStep], ends: Mapping[str, int]) -> dict[str, str | None]:
    """Return for each step the first ancestor that had not ended when it began; its parent if there is none.

    An ancestor that ended when a step without duration began counts as well. The ancestors that have ended are merged with
    their parents as time passes (union-find, Tarjan 1975), so that no chain of them is followed twice.
    """
    outer: dict[str, str | None] = {}
    beyond: dict[str, str | None] = {}  # of each ended step: an ancestor, all between them having ended
    ending = sorted(steps, key=ends.__getitem__, reverse=True)
    for step in sorted(steps.values(), key=lambda step: _latest_ended(step, ends)):
        while ending and ends[ending[-1]] <= _latest_ended(step, ends):
            ended = ending.pop()
            ancestor = _first_running(_known(steps[ended].parent, steps), beyond)
            beyond[ended] = ancestor if ancestor != ended else None  # the parents form a circle
        parent = _known(step.parent, steps)
        ancestor = _first_running(parent, beyond)
        if ancestor is None or ancestor == step.id:
            ancestor = parent if parent != step.id else None
        outer[step.id] = ancestor
    return outer


def _latest_ended(step: RecordedStep, ends: Mapping[str, int]) -> int:
    """Return the latest end of a step that had ended before `step` began."""
    return step.start_ns if ends[step.id] > step.start_ns else step.start_ns - 1


def _first_running(at: str | None, beyond: dict[str, str | None]) -> str | None:
    """Return the first of `at` and its ancestors that has not ended, and let `beyond` lead there at once."""
    passed: list[str] = []
    while at is not None and at in beyond:
        passed.append(at)
        at = beyond[at]
    for each in passed:
        beyond[each] = at
    return at


def _known(parent: str | None, steps: Mapping[str, RecordedStep]) -> str | None:
    return parent if parent in steps else None


def _place_by_time(
    steps: Mapping[str, RecordedStep], ancestors: Mapping[str, str | None], ends: Mapping[str, int]
) -> dict[str, str | None]:
    """Return the place of each engine step: the shortest one below its ancestor that contains it, or else the ancestor."""
    places = dict(ancestors)
    engine = sorted(
        (step for step in steps.values() if step.kind in _PLACED_BY_TIME),
        key=lambda step: (step.start_ns, -ends[step.id]),
    )
    durations = {step.id: ends[step.id] - step.start_ns for step in engine}
    nodes: dict[
        str, dict[str, int]
    ] = {}  # of each, the ends of the placed steps that still run, in the order of their start
    ending: list[tuple[int, str, str]] = []  # these ends, the nodes and the ids, as a heap
    for step in engine:
        while ending and ending[0][0] < step.start_ns:
            _, node, ended = heappop(ending)
            del nodes[node][ended]
        active = nodes.setdefault(step.node, {})
        top, end = ancestors[step.id], ends[step.id]
        containing: list[str] = []
        for each, until in islice(reversed(active.items()), _MAX_ACTIVE):
            if each == top:
                break  # those before it are not below it
            if until >= end:
                containing.append(each)
        containing.sort(key=durations.__getitem__)  # of two equally short ones, the last one lies inside the other
        candidates = (each for each in containing if not _are_peers(step, steps[each]))
        place = _first_below(top, end, candidates, ancestors, active)
        if place is not None:
            places[step.id] = place
        active[step.id] = end
        heappush(ending, (end, step.node, step.id))
    return places


def _first_below(
    top: str | None,
    end: int,
    candidates: Iterable[str],
    ancestors: Mapping[str, str | None],
    active: Mapping[str, int],
) -> str | None:
    """Return the first of `candidates` that lies below `top`, by way of active steps that end no earlier than `end`."""
    checked: set[str] = set()  # none of these lies below `top`
    for candidate in candidates:
        at = ancestors[candidate]
        while at is not None and at != top and at not in checked and active.get(at, -1) >= end:
            if len(checked) == _MAX_CHECKS:
                return None
            checked.add(at)
            at = ancestors[at]
        if at == top:
            return candidate
    return None


def _are_peers(one: RecordedStep, other: RecordedStep) -> bool:
    """Return whether the steps ran in two processes of a kind, such as two workers: neither contains the other."""
    first, second = str(one.attributes.get("process", "")), str(other.attributes.get("process", ""))
    return first != second and first.rstrip(_DIGITS) == second.rstrip(_DIGITS)


def _build(
    top: RecordedStep, below: dict[str | None, list[RecordedStep]], ends: dict[str, int], placed: set[str]
) -> PlacedStep:
    """Return `top` with all that lies below it; add their ids to `placed`."""

    def place(step: RecordedStep, outer: PlacedStep | None) -> PlacedStep:
        placed.add(step.id)
        depth = outer.depth + 1 if outer is not None else 0
        at = PlacedStep(
            step=step, node=_node(step, outer), depth=depth, start_ns=step.start_ns, end_ns=ends[step.id], outer=outer
        )
        pending.append(at)
        return at

    pending: list[PlacedStep] = []
    root = place(top, None)
    while pending:
        at = pending.pop()
        at.inside = [place(step, at) for step in below.get(at.step.id, ()) if step.id not in placed]
    return root


def _node(step: RecordedStep, outer: PlacedStep | None) -> str:
    if step.kind == "node":
        return str(step.attributes.get("node", step.name))
    if step.kind == "cluster":
        return ""
    if outer is not None and outer.step.kind != "cluster":
        return outer.node
    return step.node
