"""The reports that are tables."""

from __future__ import annotations

import click

from phasebus.initializer.cli.blame import print_blame
from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.report.journals import described, journal_of, json_option, plain, print_json
from phasebus.initializer.cli.report.show import Column, print_table
from phasebus.telemetry import analysis
from phasebus.telemetry.analysis import time_to_ready
from phasebus.telemetry.formatting import format_duration, format_title
from phasebus.telemetry.journal import RecordedStep, find_journal, read_journal

SLOWER_EXIT_CODE = 3
"""The exit code of `diff` if the second run was slower; 1 is an error and 2 wrong usage."""


@click.command()
@json_option
@click.pass_context
def blame(context: click.Context, *, as_json: bool) -> None:
    """List the steps by duration, the longest first."""
    with reported():
        run = journal_of(context)
        if as_json:
            print_json(run, blame=[plain(row) for row in analysis.blame(run)])
            return
        click.echo(described(run))
        print_blame(run)


@click.command("critical-path", short_help="Show the chain of steps that set the time to ready.")
@json_option
@click.pass_context
def critical_path(context: click.Context, *, as_json: bool) -> None:
    """Show the chain of steps that set the time to ready, and what an ideal overlap would save."""
    with reported():
        run = journal_of(context)
        path = analysis.critical_path(run)
        if as_json:
            links = [plain(link, seconds=link.seconds) for link in path.links]
            print_json(run, critical_path=links, overlap=plain(path.overlap))
            return
        click.echo(described(run))
        smallest = time_to_ready(run) / 1000
        print_table(
            [Column("at", "s"), Column("waited", "s"), Column("for what")],
            [
                (
                    (link.start_ns - path.links[0].start_ns) / 1e9,
                    link.seconds,
                    f"{'  ' * link.depth}{_titled(link.step)}{' (under no name)' if link.gap else ''}",
                )
                for link in path.links
                if link.seconds >= smallest
            ],
        )
        if path.overlap.longest is not None:
            longest = format_title(path.overlap.longest.kind, path.overlap.longest.name)
            click.echo(
                f"If everything else ran beside {longest}, the start would take {format_duration(path.overlap.at_best)}, "
                f"{format_duration(path.overlap.saved)} less. Steps that need another step's result cannot overlap it."
            )


@click.command()
@click.option("--shortest", type=click.FloatRange(0), default=0.01, show_default=True, help="In seconds.")
@json_option
@click.pass_context
def gaps(context: click.Context, shortest: float, *, as_json: bool) -> None:
    """List the time that no step covers."""
    with reported():
        run = journal_of(context)
        rows = analysis.gaps(run, shortest)
        if as_json:
            print_json(run, gaps=[plain(row) for row in rows], unnamed_share=analysis.unnamed_share(run))
            return
        click.echo(described(run))
        click.echo(f"{100 * analysis.unnamed_share(run):.1f} % of the time to ready has no step.")
        print_table(
            [Column("seconds", "s"), Column("in"), Column("after"), Column("before"), Column("node")],
            [
                (
                    row.seconds,
                    _titled(row.step),
                    _titled(row.after) if row.after else "its begin",
                    _titled(row.before) if row.before else "its end",
                    row.node,
                )
                for row in rows
            ],
        )


@click.command()
@json_option
@click.pass_context
def stragglers(context: click.Context, *, as_json: bool) -> None:
    """Name the slowest node of each phase and step."""
    with reported():
        run = journal_of(context)
        rows = analysis.stragglers(run)
        if as_json:
            print_json(run, stragglers=[plain(row, behind=row.behind) for row in rows])
            return
        click.echo(described(run))
        if not rows:
            click.echo("There is nothing to compare: no phase or step ran on two nodes.")
            return
        columns = [Column("behind", "s"), Column("slowest", "s"), Column("median", "s"), Column("nodes", "n")]
        print_table(
            [*columns, Column("node"), Column("at")],
            [
                (row.behind, row.seconds, row.median, row.nodes, row.node, format_title(row.kind, row.name).strip())
                for row in rows
            ],
        )


@click.command(short_help="Compare the durations of two runs.")
@click.argument("before")
@click.argument("after")
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
    """Compare the runs BEFORE and AFTER, the largest slowdowns first.

    The exit code is 3 if a phase, a node or the cluster got slower. For several nodes the slowest one is compared.
    """
    if context.obj is not None:
        raise click.UsageError("diff takes its two runs after its name: phasebus report diff BEFORE AFTER")
    with reported():
        first, second = read_journal(find_journal(before)), read_journal(find_journal(after))
        rows = analysis.diff(first, second)
        slower = [row for row in rows if row.before is not None and row.slower(percent / 100, seconds)]
        slower = [row for row in slower if row.kind in ("cluster", "node", "phase")]
        if as_json:
            print_json(
                second,
                before=first.run,
                slower=bool(slower),
                diff=[plain(row, change=row.change) for row in rows],
            )
        else:
            click.echo(f"before  {described(first)}\nafter   {described(second)}")
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


def _titled(step: RecordedStep) -> str:
    process = step.attributes.get("process")
    name = format_title(step.kind, step.name)
    return f"{name} ({process})" if process else name
