"""The critical path: the chain of steps that set the time to ready, after `systemd-analyze critical-chain`.

Walking back from the end of the outermost step, the step that ended last is what was waited for; before it began, the
one that had ended last by then, and so on, and the same inside each of them (CRISP, Zhang et al., USENIX ATC 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from phasebus.telemetry.analysis.nesting import PlacedStep, nest
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
    tops = nest(run)
    if not tops or run.root is None:
        return CriticalPath(links=(), overlap=Overlap(longest=None, at_best=0.0, saved=0.0))
    root = next(top for top in tops if top.step.id == run.root.id)
    links = sorted(_back(root, root.start_ns, root.end_ns), key=lambda link: link.start_ns)
    return CriticalPath(links=tuple(links), overlap=_overlap(root, tuple(links)))


def _back(at: PlacedStep, start: int, end: int) -> Iterator[Link]:
    """Yield the stretches of `at` between `start` and `end`, the last one first."""
    reached = end
    while reached > start:
        begun = [each for each in at.inside if each.start_ns < min(reached, each.end_ns) and each.end_ns > start]
        last = max((each for each in begun if each.end_ns <= reached), key=lambda each: each.end_ns, default=None)
        since = last.end_ns if last is not None else start
        if last is not None and since == reached:
            began = max(last.start_ns, start)
            yield from _back(last, began, reached)
        elif beside := [each for each in begun if each.end_ns > reached]:  # not waited for; but what else ran?
            other = min(beside, key=lambda each: each.start_ns)
            began = max(other.start_ns, since)
            yield from _back(other, began, reached)
        else:
            began = since
            yield _link(at, began, reached)
        reached = began


def _link(at: PlacedStep, start: int, end: int) -> Link:
    return Link(step=at.step, node=at.node, depth=at.depth, start_ns=start, end_ns=end, gap=bool(at.inside))


def _overlap(root: PlacedStep, links: tuple[Link, ...]) -> Overlap:
    """Compare the parts of the root, or of whatever inside it is nearly all of it, that are on the path."""
    waited_for = {link.step.id for link in links}
    parts = _on_path(root, waited_for)
    if not parts:
        return Overlap(longest=None, at_best=root.seconds, saved=0.0)
    longest = max(parts, key=lambda each: each.seconds)
    while longest.seconds > _NEARLY_ALL * root.seconds and (inside := _on_path(longest, waited_for)):
        parts = [each for each in parts if each is not longest] + inside
        longest = max(parts, key=lambda each: each.seconds)
    saved = max(0.0, min(sum(each.seconds for each in parts), root.seconds) - longest.seconds)
    return Overlap(longest=longest.step, at_best=root.seconds - saved, saved=saved)


def _on_path(at: PlacedStep, waited_for: set[str]) -> list[PlacedStep]:
    return [each for each in at.inside if any(below.step.id in waited_for for below in each.walk())]
