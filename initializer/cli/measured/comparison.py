"""Series of runs, and whether the starts of one are slower than those of another, and in which step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from phasebus.initializer.cli.report.journals import plain
from phasebus.initializer.cli.report.show import Column, print_table
from phasebus.telemetry import analysis
from phasebus.telemetry.analysis.comparison import FALSE_ALARMS, Comparison, Shift
from phasebus.telemetry.formatting import format_duration, format_title
from phasebus.telemetry.history import FINGERPRINT, Configuration, recorded_runs
from phasebus.telemetry.journal import JournalError, Run, RunSummary, read_journal, summarize

_SHOWN = 12


def print_series(before: str, after: str, smallest_share: float, *, as_json: bool) -> bool:
    """Compare two series, print the comparison, and return whether the second one is slower.

    Args:
        before: The name of the first series; see `series`.
        after: The name of the second one.
        smallest_share: The smallest shift that counts, as a share of the duration before.
        as_json: Whether to print JSON.

    Raises:
        JournalError: One of them has no runs.
    """
    first, second = series(before), series(after)
    comparison, factors = analysis.compare(first, second, smallest_share), differing_factors(first, second)
    if as_json:
        click.echo(json.dumps({**plain(comparison), "factors": factors}, indent=2, ensure_ascii=False))
    else:
        print_comparison(comparison, before, after, factors)
    return comparison.slower


def series(name: str) -> Sequence[Run]:
    """Return the runs of a series that became ready, the oldest first.

    Args:
        name: A folder of journals, or the fingerprint of a configuration.

    Raises:
        JournalError: There are none.
    """
    if os.path.isdir(name):
        journals = [
            path for path in sorted(Path(name).rglob("*.jsonl")) if not path.parent.with_suffix(".jsonl").exists()
        ]
        return _ready([each for path in journals for each in _summary(path)], f"the folder {name}")
    found = [each for each in recorded_runs(most=10**9) if str(each.attributes.get(FINGERPRINT, "")) == name]
    return _ready(found[::-1], f"the configuration {name!r}, which is no folder either (see `phasebus runs list`),")


def _summary(path: Path) -> Sequence[RunSummary]:
    with suppress(JournalError):
        return (summarize(path),)
    return ()


def _ready(found: Sequence[RunSummary], what: str) -> Sequence[Run]:
    runs: list[Run] = []
    for each in found:
        if each.outcome == "finished" and each.kind in ("node", "cluster"):
            with suppress(JournalError):
                runs.append(read_journal(each.path))
    if not runs:
        raise JournalError(f"no run of {what} has become ready")
    return runs


def differing_factors(before: Sequence[Run], after: Sequence[Run]) -> Mapping[str, tuple[Any, Any]]:
    """Return the factors of the configuration in which the last runs of two series differ, with both values."""
    last = [Configuration.from_attributes(runs[-1].root.attributes) for runs in (before, after) if runs[-1].root]
    return last[0].difference(last[1]) if len(last) == 2 and last[0] and last[1] else {}


def print_comparison(comparison: Comparison, before: str, after: str, factors: Mapping[str, tuple[Any, Any]]) -> None:
    """Print a comparison: the time to ready, what differs, the verdict, and the steps whose own time changed most.

    Args:
        comparison: The comparison.
        before: The name of the first series.
        after: The name of the second one.
        factors: The factors of the configuration that differ, with both values.
    """
    first, second = comparison.runs
    whole = comparison.whole
    click.echo(f"before  {before}: ready in {format_duration(whole.before)}, the median of {_count(first)}")
    click.echo(f"after   {after}: ready in {format_duration(whole.after)}, the median of {_count(second)}")
    for name, values in list(factors.items())[:_SHOWN]:
        click.echo(f"differs {name}: {' > '.join('none' if value is None else str(value) for value in values)}")
    click.echo(_verdict(comparison))
    rows = [whole, *(shift for shift in comparison.steps if shift.significant), *comparison.steps]
    print_table(
        [
            Column("change", "+"),
            Column("own", "+"),
            Column("before", "s"),
            Column("after", "s"),
            Column("chance"),
            Column("what"),
        ],
        [_row(shift) for shift in dict.fromkeys(rows[:_SHOWN])],
    )


def _count(runs: int) -> str:
    return f"{runs} run{'' if runs == 1 else 's'}"


def _verdict(comparison: Comparison) -> str:
    whole, culprit = comparison.whole, comparison.culprit
    because = ""
    if culprit is not None:
        because = f"; the step that changed most is {_titled(culprit)} ({culprit.own_change:+.2f} s)"
    if whole.significant:
        return f"The start is {100 * abs(whole.share):.1f} % {'slower' if whole.change > 0 else 'faster'}{because}."
    if comparison.slower:
        return f"The time to ready did not change by more than chance explains, but a step is slower{because}."
    if not comparison.enough:
        return f"There are too few runs to distinguish a shift from chance at {100 * FALSE_ALARMS:.0f} %; 5 and 5 are the least."
    return "No difference that chance does not explain."


def _row(shift: Shift) -> tuple[object, ...]:
    mark = " ▲" if shift.significant and shift.change > 0 else " ▼" if shift.significant else ""
    return shift.change, shift.own_change, shift.before, shift.after, f"{shift.probability:.1g}", _titled(shift) + mark


def _titled(shift: Shift) -> str:
    if shift.kind == "start":
        return "time to ready"
    return format_title(shift.kind, shift.name).strip() + (f" ({shift.process})" if shift.process else "")
