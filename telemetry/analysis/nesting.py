"""The tree of a run's steps, with the node of each: the input of every other analysis.

No function here recurses, and none compares all steps with all others: a journal may hold any number of steps, at any depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from typing import Final

from phasebus.telemetry.journal import RecordedStep, Run

_PLACED_BY_TIME: Final = ("engine_step",)
_DIGITS: Final = "0123456789"
_WAITS: Final = "wait_for_"
"""What the names of steps begin with that only wait for other steps."""

_MAX_ACTIVE: Final = 256
"""How many of the steps that run at the start of another one are considered as its place, the latest first."""

_MAX_CANDIDATES: Final = 64
"""How many of the steps that contain another one are considered as its place, the shortest first."""


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
    outer = {step.id: _running_ancestor(step, steps, ends) for step in run.steps}
    _place_by_time(run, outer, ends)
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


def _running_ancestor(step: RecordedStep, steps: dict[str, RecordedStep], ends: dict[str, int]) -> str | None:
    """Return the first ancestor that had not ended when `step` began; its parent if there is none."""
    parent = at = _known(step.parent, steps)
    seen = {step.id}
    while at is not None and at not in seen:
        if ends[at] > step.start_ns or ends[at] == ends[step.id]:
            return at
        seen.add(at)
        at = _known(steps[at].parent, steps)
    return parent if parent != step.id else None


def _known(parent: str | None, steps: dict[str, RecordedStep]) -> str | None:
    return parent if parent in steps else None


def _place_by_time(run: Run, outer: dict[str, str | None], ends: dict[str, int]) -> None:
    """Set in `outer` the place of each engine step: the shortest engine step below its ancestor that contains it."""
    ancestors = dict(outer)
    engine = [step for step in run.steps if step.kind in _PLACED_BY_TIME]
    active: dict[str, RecordedStep] = {}  # the placed ones that had not ended, in the order of their start
    ending: list[tuple[int, str]] = []  # their ends, as a heap
    for step in sorted(engine, key=lambda step: (step.start_ns, -ends[step.id])):
        while ending and ending[0][0] < step.start_ns:
            del active[heappop(ending)[1]]
        containing: list[RecordedStep] = []
        for each in islice(
            reversed(active.values()), _MAX_ACTIVE
        ):  # of two that are equally short, the last one lies inside the other
            if each.id == ancestors[step.id]:
                break  # those before it are not below it
            if ends[each.id] >= ends[step.id]:
                containing.append(each)
        containing.sort(key=lambda each: ends[each.id] - each.start_ns)
        for other in containing[:_MAX_CANDIDATES]:
            if not _are_peers(step, other) and _is_below(other.id, ancestors[step.id], step, ancestors, active, ends):
                outer[step.id] = other.id
                break
        active[step.id] = step
        heappush(ending, (ends[step.id], step.id))


def _is_below(
    other: str,
    top: str | None,
    step: RecordedStep,
    ancestors: dict[str, str | None],
    active: dict[str, RecordedStep],
    ends: dict[str, int],
) -> bool:
    """Return whether `other` lies below `top`, by way of placed steps that all contain `step`."""
    at = ancestors[other]
    for _ in range(_MAX_CANDIDATES):
        if at == top:
            return True
        if at is None or at not in active or ends[at] < ends[step.id]:
            return False
        at = ancestors[at]
    return False


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
