"""The report that compares two runs, or a run with what is usual."""

from __future__ import annotations

from collections.abc import Sequence

import click

from phasebus.initializer.cli.failures import SLOWER_EXIT_CODE, reported
from phasebus.initializer.cli.options import json_option
from phasebus.initializer.cli.report.journals import described, plain, print_json
from phasebus.initializer.cli.report.show import Column, print_table
from phasebus.telemetry import analysis
from phasebus.telemetry.formatting import format_duration, format_title
from phasebus.telemetry.history import LAST, USUAL, find_run, usual_runs
from phasebus.telemetry.journal import Run, read_journal


@click.command()
@click.argument("before")
@click.argument("after", default=LAST)
@click.option(
    "--percent",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="Minimum slowdown to report, in percent…",
)
@click.option("--seconds", type=click.FloatRange(0), default=0.5, show_default=True, help="… and in seconds.")
@json_option
@click.pass_context
def diff(context: click.Context, before: str, after: str, percent: float, seconds: float, *, as_json: bool) -> None:
    """Compare the runs BEFORE and AFTER (by default the last run), the largest slowdowns first.

    `usual` in the place of one of them stands for the median of the other runs with the same configuration. The exit code
    is 3 if a phase, a node or the cluster got slower. For several nodes the slowest one is compared.
    """
    if context.obj is not None:
        raise click.UsageError("diff takes its two runs after its name: phasebus report diff BEFORE AFTER")
    if before == after == USUAL:
        raise click.UsageError("`usual` needs a run to be compared with: phasebus report diff usual RUN")
    with reported():
        first, second = _runs(before, after)
        rows = analysis.diff(first, second)
        slower = [row for row in rows if row.before is not None and row.slower(percent / 100, seconds)]
        slower = [row for row in slower if row.kind in ("cluster", "node", "phase")]
        if as_json:
            about = first[0] if after == USUAL else second[0]
            compared = {"before": _id(first, before), "after": _id(second, after)}
            print_json(about, **compared, slower=bool(slower), diff=[plain(row, change=row.change) for row in rows])
        else:
            click.echo(f"before  {_described(first, before)}\nafter   {_described(second, after)}")
            print_table(
                [Column("change", "+"), Column("before", "s"), Column("after", "s"), Column("what")],
                [
                    (
                        row.change,
                        row.before,
                        row.after,
                        format_title(row.kind, row.name).strip() + " ▲" * (row in slower),
                    )
                    for row in rows
                ],
            )
    if slower:
        context.exit(SLOWER_EXIT_CODE)


def _runs(before: str, after: str) -> tuple[Sequence[Run], Sequence[Run]]:
    if before == USUAL:
        second = read_journal(find_run(after))
        return usual_runs(second), [second]
    first = read_journal(find_run(before))
    return [first], usual_runs(first) if after == USUAL else [read_journal(find_run(after))]


def _described(runs: Sequence[Run], name: str) -> str:
    if name != USUAL:
        return described(runs[0])
    seconds = format_duration(analysis.usual_seconds(runs))
    return f"usual: ready in {seconds}, the median of {len(runs)} run{'' if len(runs) == 1 else 's'}"


def _id(runs: Sequence[Run], name: str) -> object:
    return [each.run for each in runs] if name == USUAL else runs[0].run
