"""Advice: what would shorten the next start, and by how much, from replays of recorded ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from phasebus.telemetry.analysis.blame import time_to_ready
from phasebus.telemetry.analysis.nesting import PlacedStep
from phasebus.telemetry.analysis.replay import Factor, replay
from phasebus.telemetry.journal import RecordedStep, Run

SMALLEST_SHARE: Final = 0.03
"""Less than this share of the start is no advice: on a quiet machine, starts of one configuration differ by 2 to 5 %."""

SMALLEST_SECONDS: Final = 0.05
_MANY: Final = 3
_MAD_OF_NORMAL: Final = 0.6745
"""The median absolute deviation of a normal distribution, in standard deviations."""

_RAY_RESIDUE: Final = 0.2
"""What connecting to a running Ray takes, as a share of starting one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """Something that can be changed about a start.

    Attributes:
        name: What is done, as an instruction.
        how: The command or the YAML that does it.
        cost: What it costs otherwise; "" for nothing.
        factor: How long each step's own time is with it, as a multiple; see `replay`.
        around: Arguments of ``phasebus`` that do it before a start, and that undo it after it; None if there are none.
        callback: The name of the callback that it drops; "" for none.
        fills_caches: Whether it consists in caches that earlier starts have filled.
        variables: The environment variables of a start with it, to measure it; ``{folder}`` is one folder for all such starts.
    """

    name: str
    how: str
    cost: str = ""
    factor: Factor
    around: tuple[Sequence[str], Sequence[str]] | None = None
    callback: str = ""
    fills_caches: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a lever saves.

    Attributes:
        lever: The lever.
        before: The time to ready, in seconds; of several runs the median.
        saved: How much shorter the start is with it, in seconds; of several runs the smallest.
    """

    lever: Lever
    before: float
    saved: float

    @property
    def share(self) -> float:
        """What it saves as a share of the time to ready."""
        return self.saved / self.before if self.before else 0.0


def spread(seconds: Sequence[float]) -> float:
    """Return how much equal starts differ: the standard deviation of their durations, without regard to few slow ones.

    It is estimated by the median absolute deviation (Hampel, JASA 1974); 0 for fewer than three durations.
    """
    if len(seconds) < _MANY:
        return 0.0
    middle = median(seconds)
    return median(abs(each - middle) for each in seconds) / _MAD_OF_NORMAL


def advise(runs: Sequence[Run], levers: Callable[[Run], Iterable[Lever]], *, least: float = 0.0) -> Sequence[Advice]:
    """Return what would have shortened each of `runs`, the largest saving first.

    A lever counts with the smallest saving of all runs, so that none is advised that helps in one of them only.

    Args:
        runs: Runs of one configuration that have become ready.
        levers: Returns the levers of a run; those with the same name are the same.
        least: The smallest saving that is advice, in seconds; `SMALLEST_SHARE` of the start at least.
    """
    if not runs:
        return []
    before = median(map(time_to_ready, runs))
    found: dict[str, list[tuple[Lever, float]]] = {}
    for run in runs:
        for lever in levers(run):
            saved = time_to_ready(run) - time_to_ready(replay(run, lever.factor))
            found.setdefault(lever.name, []).append((lever, saved))
    rows = [
        Advice(lever=each[-1][0], before=before, saved=min(saved for _, saved in each))
        for each in found.values()
        if len(each) == len(runs)
    ]
    least = max(SMALLEST_SECONDS, SMALLEST_SHARE * before, least)
    return sorted((row for row in rows if row.saved >= least), key=lambda row: -row.saved)


def common_levers(run: Run) -> Iterable[Lever]:
    """Return the levers of any start: its callbacks, its download, and Ray."""
    for name in dict.fromkeys(step.name for step in run.steps if step.kind == "callback"):
        yield Lever(
            name=f"drop the callback {name}, or let it work in the background",
            how="remove it from `callbacks:`, or start a task in it and return",
            cost="what it does",
            callback=name,
            factor=_without(lambda step, name=name: step.kind == "callback" and step.name == name),  # type: ignore[misc]
        )
    if any(map(_is_fetched, run.steps)):
        yield Lever(
            name="have the model on this machine before the start",
            how="model: /path/to/the/model, or a volume for the cache (HF_HOME) that outlives the container",
            cost="space on the disk of each machine",
            factor=_without(_is_fetched),
        )
    if any(step.kind == "ray" and step.name == "start" for step in run.steps):
        yield Lever(
            name="connect to a Ray that is running",
            how="ray start --head, and `ray: {address: auto}`",
            cost="a Ray that stays",
            factor=_without(lambda step: step.kind == "ray" and step.name == "start", _RAY_RESIDUE),
        )


def _is_fetched(step: RecordedStep) -> bool:
    """Return whether a step downloads a model from elsewhere; a model at a path is copied or checked."""
    return step.kind == "download" and step.attributes.get("source") != "file"


def _without(selected: Callable[[RecordedStep], bool], residue: float = 0.0) -> Factor:
    """Return a factor that leaves `residue` of the steps that are selected, with what is inside them."""

    def factor(at: PlacedStep) -> float:
        return residue if any(selected(each.step) for each in at.outward()) else 1.0

    return factor


def shortened(selected: Callable[[RecordedStep], bool], residue: float) -> Factor:
    """Return a factor that leaves `residue` of the own time of the steps that are selected, and of no others."""
    return lambda at: residue if selected(at.step) else 1.0
