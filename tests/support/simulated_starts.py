"""Made-up starts with the shape of real ones: nested and parallel steps, a machine of varying speed, rare slow steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from random import Random

from phasebus.telemetry.analysis.forecast import PastRun, past_run
from phasebus.telemetry.journal import RecordedStep, Run
from tests.support.runs import run_of, step


@dataclass(frozen=True)
class Shape:
    """What the starts of one configuration have in common.

    Attributes:
        parts: The usual duration of each step of each of the branches of each phase, in seconds.
        machine: The standard deviation of the logarithm of the machine's speed.
        noise: Likewise of the duration of each step, by itself.
        slow: The probability that one step takes 1.5 to 3 times as long.
    """

    parts: Sequence[Sequence[Sequence[float]]]
    machine: float
    noise: float
    slow: float

    @classmethod
    def drawn(cls, chance: Random) -> Shape:
        """Return a shape, drawn from `chance`: three to seven phases of one to three branches with one to six steps each."""
        return cls(
            parts=[
                [
                    [chance.lognormvariate(1.0, 1.2) for _ in range(chance.randint(1, 6))]
                    for _ in range(chance.choice((1, 1, 2, 3)))
                ]
                for _ in range(chance.randint(3, 7))
            ],
            machine=chance.uniform(0.02, 0.15),
            noise=chance.uniform(0.02, 0.15),
            slow=chance.choice((0.0, 0.05, 0.1)),
        )

    def start(self, chance: Random) -> PastRun:
        """Return one start."""
        found = past_run(self.run(chance))
        assert found is not None
        return found

    def run(self, chance: Random) -> Run:
        """Return one start as its journal records it."""
        speed = exp(chance.gauss(0, self.machine))
        slow = chance.random() < self.slow
        steps: list[RecordedStep] = []
        at = 0.0
        slow_phase = chance.randrange(len(self.parts))
        for number, branches in enumerate(self.parts):
            begin = end = at + 0.001
            for branch, durations in enumerate(branches):
                reached = begin
                for part, usual in enumerate(durations):
                    seconds = usual * speed * exp(chance.gauss(0, self.noise))
                    if slow and number == slow_phase and branch == 0 and part == 0:
                        seconds *= chance.uniform(1.5, 3)
                    name = f"{number}-{branch}-{part}"
                    steps.append(
                        step(
                            name,
                            reached,
                            reached + seconds,
                            f"phase {number}",
                            kind="engine_step",
                            process=f"p{branch}",
                        )
                    )
                    reached += seconds + 0.001
                end = max(end, reached)
            steps.append(step(f"phase {number}", begin, end, "root"))
            at = end
        return run_of(step("root", 0, at, kind="node"), *steps, end=at)
