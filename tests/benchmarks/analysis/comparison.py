"""How well `phasebus compare` distinguishes a slower start from chance, on simulated series of a recorded start of vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from random import Random

from phasebus.telemetry.analysis import blame, compare, replay, time_to_ready
from phasebus.telemetry.analysis.nesting import PlacedStep
from phasebus.telemetry.journal import Run, read_journal
from tests.benchmarks.measuring import Number, Table

RECORDED = Path("tests/unit/telemetry/recorded/vllm_serve.jsonl")
STARTS, SERIES, SHIFT = 10, 1000, 0.05
NOISE = (0.01, 0.02, 0.03)
"""The coefficients of variation of a step between starts: half of the variance is its own, half that of the machine."""


def tables() -> Iterator[Table]:
    """Simulate series of starts that are equal, and ones of which a step takes longer."""
    recorded = read_journal(RECORDED)
    table = Table(
        f"`phasebus compare` of {STARTS} and {STARTS} starts: {SERIES} pairs of simulated series",
        ["noise of each step", "false alarms", f"missed shifts of {SHIFT:.0%}", "another step blamed"],
        notes=[
            f"A recorded start of vLLM, replayed with random own times. The shift is {SHIFT:.0%} of the time to ready, in one step.",
            "Half of the variance is the step's own, half that of the machine. At 3 %, ten starts are too few for 5 %.",
        ],
    )
    for noise in NOISE:
        false, missed, wrong = _simulate(recorded, noise / sqrt(2))
        marked = noise <= NOISE[1]
        table.rows.append(
            [
                f"{noise:.0%}",
                Number(100 * false / SERIES, " %", 1.0),
                Number(100 * missed / SERIES, " %", 5.0 if marked else None),
                Number(100 * wrong / max(1, SERIES - missed), " %", 5.0 if marked else None),
            ]
        )
    yield table


def _simulate(recorded: Run, noise: float) -> tuple[int, int, int]:
    """Return how many equal pairs differ, how many shifts are missed, and how many are blamed on another step."""
    random = Random(noise)
    ready = time_to_ready(recorded)
    candidates = [row for row in blame(recorded) if row.own > SHIFT * ready / 4 and row.step.kind == "engine_step"]
    false = missed = wrong = 0
    for _ in range(SERIES):
        usual, equal = ([_start(recorded, random, noise) for _ in range(STARTS)] for _ in range(2))
        false += compare(usual, equal).slower
        slow = random.choice(candidates)
        longer = 1 + SHIFT * ready / slow.own
        shifted = compare(usual, [_start(recorded, random, noise, slow.step.id, longer) for _ in range(STARTS)])
        if not shifted.slower:
            missed += 1
        elif (shifted.culprit is None) or (shifted.culprit.name, shifted.culprit.process) != (
            slow.step.name,
            slow.step.attributes.get("process"),
        ):
            wrong += 1
    return false, missed, wrong


def _start(recorded: Run, random: Random, noise: float, slow: str = "", longer: float = 1.0) -> Run:
    machine = random.lognormvariate(0, noise)

    def factor(at: PlacedStep) -> float:
        return machine * random.lognormvariate(0, noise) * (longer if at.step.id == slow else 1)

    return replay(recorded, factor)
