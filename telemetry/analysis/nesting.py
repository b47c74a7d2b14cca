"""Which steps of a run lie inside which, and on which node: what every other analysis starts from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from phasebus.telemetry.journal import RecordedStep, Run

_PLACED_BY_TIME = ("engine_step",)
_DIGITS = "0123456789"


@dataclass(slots=True, kw_only=True, eq=False)
class PlacedStep:
    """A step at its place in the tree of a run.

    Attributes:
        step: The step.
        node: The node it ran on; "" for what belongs to no single one, such as the start of a cluster.
        depth: How many steps it lies inside of.
        start_ns: When it began, in nanoseconds since the epoch.
        end_ns: When it ended, or until when the journal tells of it, likewise.
        outer: The step it lies inside of; None at the top.
        inside: The steps directly inside it, by when they began.
    """

    step: RecordedStep
    node: str
    depth: int
    start_ns: int
    end_ns: int
    outer: PlacedStep | None = None
    inside: list[PlacedStep] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until now."""
        return (self.end_ns - self.start_ns) / 1e9

    def walk(self) -> Iterator[PlacedStep]:
        """Yield the step and all that lies inside it, each before what is inside."""
        yield self
        for each in self.inside:
            yield from each.walk()

    def outward(self) -> Iterator[PlacedStep]:
        """Yield the step and those it lies inside of, from the inside out."""
        at: PlacedStep | None = self
        while at is not None:
            yield at
            at = at.outer


def nest(run: Run) -> tuple[PlacedStep, ...]:
    """Return the outermost steps of `run`, by when they began; the rest lies inside them.

    A step lies inside its parent. The steps of an engine do not say so reliably: some have parents that had ended before
    they began, others are told by a process that cannot know. They are placed by time: inside the shortest step of the
    engine that contains them, below the first ancestor that still ran.
    """
    steps = {step.id: step for step in run.steps}
    outer = {step.id: _outer(step, steps, run) for step in run.steps}
    below: dict[str | None, list[str]] = {}
    for each, parent in outer.items():
        below.setdefault(parent, []).append(each)
    engine = [step for step in run.steps if step.kind in _PLACED_BY_TIME]
    placed: set[str] = set()
    for step in sorted(engine, key=lambda step: (step.start_ns, -end_of(step, run))):
        narrowest = _narrowest(step, outer[step.id], below, placed, steps, run)
        if narrowest != outer[step.id]:
            below[outer[step.id]].remove(step.id)
            below.setdefault(narrowest, []).append(step.id)
        placed.add(step.id)
    return tuple(_build(None, None, below, steps, run))


def walk(run: Run) -> Iterator[PlacedStep]:
    """Yield every step of `run` in the order of a waterfall: each before what lies inside it."""
    for top in nest(run):
        yield from top.walk()


def end_of(step: RecordedStep, run: Run) -> int:
    """Return when `step` ended, or until when the journal tells of it; in nanoseconds since the epoch."""
    return max(step.start_ns, step.end_ns if step.end_ns is not None else run.end_ns)


def uncovered(at: PlacedStep) -> Iterator[tuple[int, int]]:
    """Yield the intervals of `at` during which none of the steps inside it ran, in nanoseconds since the epoch."""
    reached = at.start_ns
    for each in at.inside:
        if each.start_ns > reached:
            yield reached, min(each.start_ns, at.end_ns)
        reached = max(reached, each.end_ns)
        if reached >= at.end_ns:
            return
    yield reached, at.end_ns


def _known(parent: str | None, steps: dict[str, RecordedStep]) -> str | None:
    return parent if parent in steps else None


def _outer(step: RecordedStep, steps: dict[str, RecordedStep], run: Run) -> str | None:
    """Return the first ancestor that had not ended when `step` began; its parent if there is none."""
    parent = at = _known(step.parent, steps)
    seen = {step.id}
    while at is not None and at not in seen:
        if end_of(steps[at], run) > step.start_ns or end_of(steps[at], run) == end_of(step, run):
            return at
        seen.add(at)
        at = _known(steps[at].parent, steps)
    return parent if parent != step.id else None


def _narrowest(
    step: RecordedStep,
    top: str | None,
    below: dict[str | None, list[str]],
    placed: set[str],
    steps: dict[str, RecordedStep],
    run: Run,
) -> str | None:
    """Return the shortest step below `top` that contains `step`, of those in `placed`; or else `top`."""
    found, shortest = top, None
    waiting = [each for each in below.get(top, ()) if each in placed]
    while waiting:
        other = steps[waiting.pop()]
        length = end_of(other, run) - other.start_ns
        if other.start_ns <= step.start_ns and end_of(other, run) >= end_of(step, run):
            waiting += [each for each in below.get(other.id, ()) if each in placed]
            if (shortest is None or length <= shortest) and not _are_peers(step, other):
                found, shortest = other.id, length
    return found


def _are_peers(one: RecordedStep, other: RecordedStep) -> bool:
    """Return whether the steps were taken by two processes of a kind, such as two workers: neither contains the other."""
    first, second = str(one.attributes.get("process", "")), str(other.attributes.get("process", ""))
    return first != second and first.rstrip(_DIGITS) == second.rstrip(_DIGITS)


def _build(
    parent: str | None,
    outer: PlacedStep | None,
    below: dict[str | None, list[str]],
    steps: dict[str, RecordedStep],
    run: Run,
) -> Iterator[PlacedStep]:
    for each in sorted(below.get(parent, ()), key=lambda id_: (steps[id_].start_ns, -end_of(steps[id_], run))):
        step = steps[each]
        placed = PlacedStep(
            step=step,
            node=_node(step, outer),
            depth=outer.depth + 1 if outer is not None else 0,
            start_ns=step.start_ns,
            end_ns=end_of(step, run),
            outer=outer,
        )
        placed.inside = list(_build(each, placed, below, steps, run))
        yield placed


def _node(step: RecordedStep, outer: PlacedStep | None) -> str:
    if step.kind == "node":
        return str(step.attributes.get("node", step.name))
    if step.kind == "cluster":
        return ""
    if outer is not None and outer.step.kind != "cluster":
        return outer.node
    return step.node
