"""Measuring and showing: interleaved rounds, medians, marks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Number:
    """A measured number, and the most it may be.

    Attributes:
        value: The number.
        unit: What it counts, as printed behind it.
        mark: The most it may be; None where nothing was asked.
        beside: More, in brackets.
    """

    value: float
    unit: str = "x"
    mark: float | None = None
    beside: str = ""

    @property
    def met(self) -> bool:
        """Whether it is within its mark, at the precision it is printed with."""
        return self.mark is None or round(self.value, 2) <= self.mark

    def __str__(self) -> str:
        text = f"{self.value:.2f}{self.unit}" if self.value < 100 else f"{self.value:.0f}{self.unit}"
        if self.mark is not None:
            text += f" ≤ {self.mark:g} {'✓' if self.met else '✗'}"
        return f"{text} ({self.beside})" if self.beside else text


@dataclass
class Table:
    """A table to print.

    Attributes:
        title: What was measured.
        columns: The heads, that of the rows' names included.
        rows: The cells: a name, then numbers, texts, or None for an empty one.
        notes: What a reader has to know; among it, the reason for a number that misses its mark.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Number | str | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def missed(self) -> int:
        """How many numbers missed their marks."""
        return sum(isinstance(cell, Number) and not cell.met for row in self.rows for cell in row)

    def __str__(self) -> str:
        lines = [[str(cell) if cell is not None else "-" for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        shown.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.title, "", *shown, *(f"* {note}" for note in self.notes)])


@dataclass(frozen=True)
class Case:
    """Two ways to do a thing, to be timed in turn.

    Attributes:
        bare: The yardstick.
        ours: Makes, for each round, what is compared with it; the making is not timed.
        repeats: How often each is done in one round.
    """

    bare: Call
    ours: Callable[[], Call]
    repeats: int


@dataclass(frozen=True)
class Comparison:
    """What came of a `Case`: medians over the rounds.

    Attributes:
        ratio: How many times as long `ours` took as `bare` in the same round.
        seconds: How long one `ours` took.
        bare_seconds: How long one `bare` took.
    """

    ratio: float
    seconds: float
    bare_seconds: float


async def compare(cases: Sequence[Case], rounds: int) -> list[Comparison]:
    """Time all `cases` in each of `rounds`, so that whatever else the machine does disturbs all alike."""
    times: list[list[tuple[float, float]]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, measured in zip(cases, times, strict=True):
            bare = await seconds(case.bare, case.repeats)
            measured.append((bare, await seconds(case.ours(), case.repeats)))
    return [
        Comparison(
            median(ours / bare for bare, ours in measured),
            median(ours for _, ours in measured),
            median(bare for bare, _ in measured),
        )
        for measured in times
    ]


async def seconds(call: Call, repeats: int) -> float:
    """Return how long one `call` took, of `repeats` in a row."""
    turns = range(repeats)
    start = perf_counter()
    for _ in turns:
        await call()
    return (perf_counter() - start) / repeats


def per_call(seconds: float) -> str:
    """Return a duration of one call for people."""
    return f"{seconds * 1e9:.0f} ns" if seconds < 1e-6 else f"{seconds * 1e6:.1f} µs"


def spread(values: Sequence[float]) -> str:
    """Return the smallest and the largest of some numbers for people."""
    return f"{min(values):.2f} to {max(values):.2f}"
