"""A recorded start, reduced to what a forecast needs: its chain of milestones, and when each step ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from phasebus.telemetry.analysis.critical_path import critical_path
from phasebus.telemetry.analysis.forecast.progress import Milestone, Progress, StepKey, key_of
from phasebus.telemetry.analysis.nesting import PlacedStep, end_of, walk
from phasebus.telemetry.journal import Run

_SHORTEST_SHARE: Final = 0.002
"""The milestones of a chain are at least this share of the whole time apart."""

CPU_SECONDS: Final = "cpu_seconds"
"""The attribute with the CPU time that the process of a step has used when the step ends, in seconds."""

CPU_SECONDS_BEFORE: Final = "cpu_seconds_before"
"""Likewise when the step begins; without it, the step began with the process."""

_MAX_STEPS: Final = 20_000
_TOO_MANY: Final = ("callback", "file", "request")
"""Kinds whose steps are too many or too short to be milestones."""


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A start that became ready.

    Attributes:
        seconds: How long it took.
        chain: The milestones along its critical path, in order, and when each was reached, in seconds after its begin.
        spans: By step: when it began and ended, likewise; only steps that it had once.
        innermost: Those of them that had no steps inside.
        busyness: How many processes competed for each CPU when it began; 1 if that was not recorded.
        cpu: By step: the CPU time that its process used meanwhile, in seconds, where that was recorded.
    """

    seconds: float
    chain: Sequence[tuple[Milestone, float]]
    spans: Mapping[StepKey, tuple[float, float]]
    innermost: AbstractSet[StepKey]
    busyness: float = 1.0
    cpu: Mapping[StepKey, float] = field(default_factory=dict)

    @cached_property
    def times(self) -> Sequence[float]:
        """When the milestones of the chain were reached."""
        return [at for _, at in self.chain]

    def progress_at(self, seconds: float) -> Progress:
        """Return how far the start was, `seconds` after its begin; processes are taken to have used the CPU evenly."""
        progress = Progress(busyness=self.busyness)
        for step, (begin, end) in self.spans.items():
            if begin <= seconds:
                progress.begin(step, begin)
                if end <= seconds:
                    progress.end(step, end)
                elif step in self.cpu:
                    progress.cpu[step] = self.cpu[step] * (seconds - begin) / (end - begin)
        return progress


def past_run(run: Run, busyness: float = 1.0) -> PastRun | None:
    """Return what a forecast needs of `run`; None if it did not become ready, or is too large.

    Args:
        run: The run.
        busyness: How many processes competed for each CPU when it began.
    """
    root = run.root
    if root is None or root.outcome != "finished" or len(run.steps) > _MAX_STEPS:
        return None
    begin, end = root.start_ns, end_of(root, run)
    seconds = (end - begin) / 1e9
    if seconds <= 0:
        return None
    several = root.kind == "cluster"
    placed = [at for at in walk(run) if at.start_ns < end and at.step.kind not in _TOO_MANY]
    keys = {at.step.id: _key(at, several=several) for at in placed}
    counts = Counter(keys.values())
    once = [at for at in placed if counts[keys[at.step.id]] == 1]
    at_time: dict[int, list[Milestone]] = {}
    for at in once:
        at_time.setdefault(at.end_ns, []).append(Milestone(keys[at.step.id], ended=True))
        if at.outer is None or at.end_ns != at.outer.end_ns:  # else it is known only at the end of both
            at_time.setdefault(at.start_ns, []).append(Milestone(keys[at.step.id], ended=False))
    chain: list[tuple[Milestone, float]] = []
    last = 0.0
    for link in critical_path(run).links[1:]:
        offset = (link.start_ns - begin) / 1e9
        if offset - last >= _SHORTEST_SHARE * seconds and (found := at_time.get(link.start_ns)):
            chain.append((found[0], offset))
            last = offset
    spans = {keys[at.step.id]: ((at.start_ns - begin) / 1e9, (min(at.end_ns, end) - begin) / 1e9) for at in once}
    innermost = {keys[at.step.id] for at in once if not at.inside}
    cpu = {keys[at.step.id]: used for at in once if (used := _cpu_seconds(at)) > 0}
    return PastRun(seconds=seconds, chain=chain, spans=spans, innermost=innermost, busyness=busyness, cpu=cpu)


def cpu_seconds_of(attributes: Mapping[str, Any], name: str = CPU_SECONDS) -> float:
    """Return the CPU time in the attribute `name` of a step, in seconds; 0 without it."""
    used = attributes.get(name)
    return float(used) if isinstance(used, int | float) else 0.0


def _cpu_seconds(at: PlacedStep) -> float:
    attributes = at.step.attributes
    return cpu_seconds_of(attributes) - cpu_seconds_of(attributes, CPU_SECONDS_BEFORE)


def _key(at: PlacedStep, *, several: bool) -> StepKey:
    return key_of(at.step.kind, at.step.name, at.node if several else "", at.step.attributes)
