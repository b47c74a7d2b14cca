"""The critical path: the chain of steps that set the time to ready, after `systemd-analyze critical-chain`.

Walking back from the end of the outermost step, the step that ended last is what was waited for; before it began, the
one that had ended last by then, and so on, and the same inside each of them (CRISP, Zhang et al., USENIX ATC 2022).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from phasebus.telemetry.analysis.nesting import PlacedStep, walk
from phasebus.telemetry.journal import RecordedStep, Run

_NEARLY_ALL = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A stretch of the critical path: what was waited for, and how long.

    Attributes:
        step: The innermost step that was waited for.
        node: The node it ran on.
        depth: How many steps it lies inside of.
        start_ns: When the waiting for it began, in nanoseconds since the epoch.
        end_ns: When it ended, likewise.
        gap: Whether the step has others inside it and none of them ran: time under no name of its own.
    """

    step: RecordedStep
    node: str
    depth: int
    start_ns: int
    end_ns: int
    gap: bool

    @property
    def seconds(self) -> float:
        """How long it was waited for."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What running things side by side could save at best.

    Attributes:
        longest: The longest of the parts that ran one after the other; ready comes no sooner than it takes. None where
            there are no parts.
        at_best: The time to ready if all parts ran beside it, in seconds.
        saved: How much less that is, in seconds.
    """

    longest: RecordedStep | None
    at_best: float
    saved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalPath:
    """The chain that set the time to ready.

    Attributes:
        links: Its stretches, in order; together they are the time to ready.
        overlap: What an ideal overlap would save.
    """

    links: tuple[Link, ...]
    overlap: Overlap


def critical_path(run: Run) -> CriticalPath:
    """Return the critical path of `run`; one without links if no step was begun."""
    return critical_path_of(run, tuple(walk(run)))


def critical_path_of(run: Run, steps: Sequence[PlacedStep]) -> CriticalPath:
    """Return the critical path of `run`, whose steps are at their places already."""
    outermost = run.root
    if outermost is None:
        return CriticalPath(links=(), overlap=Overlap(longest=None, at_best=0.0, saved=0.0))
    root = next(at for at in steps if at.step is outermost)
    stretches = sorted(_stretches(root), key=lambda stretch: stretch[1])
    links = tuple(_link(*stretch) for stretch in stretches)
    return CriticalPath(links=links, overlap=_overlap(root, [at for at, _, _ in stretches]))


_Stretch = tuple[PlacedStep, int, int]


def _stretches(root: PlacedStep) -> Iterator[_Stretch]:
    """Yield what was waited for, and from when to when: walking back from the end of `root`."""
    pending: list[_Stretch] = [(root, root.start_ns, root.end_ns)]
    by_end: dict[int, _ByEnd] = {}
    while pending:
        at, start, reached = pending.pop()
        if reached <= start:
            continue
        ends = by_end.get(id(at)) or by_end.setdefault(id(at), _ByEnd(at))
        last, beside = ends.before(start, reached)
        since = last.end_ns if last is not None else start
        if last is not None and since == reached:
            began = max(last.start_ns, start)
            pending += (at, start, began), (last, began, reached)
        elif beside is not None and beside.start_ns < reached:  # not waited for, but it ran
            began = max(beside.start_ns, since)
            pending += (at, start, began), (beside, began, reached)
        else:
            yield from _between(at, ends.waits(since), since, reached)
            pending.append((at, start, since))


def _between(at: PlacedStep, waits: Sequence[PlacedStep], start: int, end: int) -> Iterator[_Stretch]:
    """Yield the stretches of a time in which nothing inside `at` worked: the steps that waited, and what no step covers."""
    for wait in waits:
        began, ended = max(wait.start_ns, start), min(wait.end_ns, end)
        if began < ended:
            if ended < end:
                yield at, ended, end
            yield wait, began, ended
            end = began
    if start < end:
        yield at, start, end


class _ByEnd:
    """The steps inside a step by their end: those that do not only wait, and those that do.

    Args:
        at: The step.
    """

    def __init__(self, at: PlacedStep) -> None:
        waits = {id(each): each for each in at.inside if each.waits}
        inside = [each for each in at.inside if each.end_ns > each.start_ns and id(each) not in waits]
        self._waits = deque(sorted(waits.values(), key=lambda each: -each.end_ns))  # those that were not returned
        self._returned: list[PlacedStep] = []
        self._steps = sorted(inside, key=lambda each: (each.end_ns, -each.start_ns))
        self._ends = [each.end_ns for each in self._steps]
        self._first = list(self._steps)  # of those that end no earlier, the one that began first
        for number in range(len(inside) - 2, -1, -1):
            self._first[number] = min(self._steps[number], self._first[number + 1], key=_by_start)

    def before(self, start: int, reached: int) -> tuple[PlacedStep | None, PlacedStep | None]:
        """Return the step that ended last between `start` and `reached`, and the first of those that ended later."""
        number = bisect_right(self._ends, reached)
        last = self._steps[number - 1] if number and self._ends[number - 1] > start else None
        return last, self._first[number] if number < len(self._first) else None

    def waits(self, start: int) -> list[PlacedStep]:
        """Return the steps that wait after `start`, the one that ended last first; of each call, `start` is an earlier time.

        Those that had begun after the `start` of the call before are left out.
        """
        while self._waits and self._waits[0].end_ns > start:
            self._returned.append(self._waits.popleft())
        found = self._returned
        self._returned = [each for each in found if each.start_ns < start]
        return found


def _by_start(at: PlacedStep) -> tuple[int, int]:
    return at.start_ns, -at.end_ns


def _link(at: PlacedStep, start: int, end: int) -> Link:
    return Link(step=at.step, node=at.node, depth=at.depth, start_ns=start, end_ns=end, gap=bool(at.inside))


def _overlap(root: PlacedStep, path: list[PlacedStep]) -> Overlap:
    """Compare the parts of the root, or of the step inside it that is nearly all of it, that are on the path."""
    on_path: set[int] = set()
    for step in path:
        for at in step.outward():
            if id(at) in on_path:
                break
            on_path.add(id(at))

    def parts_of(at: PlacedStep) -> list[PlacedStep]:
        return [each for each in at.inside if id(each) in on_path]

    parts = parts_of(root)
    if not parts:
        return Overlap(longest=None, at_best=root.seconds, saved=0.0)
    longest = max(parts, key=lambda each: each.seconds)
    while longest.seconds > _NEARLY_ALL * root.seconds and (inside := parts_of(longest)):
        parts = [each for each in parts if each is not longest] + inside
        longest = max(parts, key=lambda each: each.seconds)
    saved = max(0.0, min(sum(each.seconds for each in parts), root.seconds) - longest.seconds)
    return Overlap(longest=longest.step, at_best=root.seconds - saved, saved=saved)
