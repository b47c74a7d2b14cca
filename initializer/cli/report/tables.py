"""The reports that are tables."""

from __future__ import annotations

import click

from phasebus.initializer.cli.blame import print_blame
from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.options import json_option
from phasebus.initializer.cli.report.journals import described, journal_of, plain, print_json, run_argument
from phasebus.initializer.cli.report.show import Column, print_table
from phasebus.telemetry import analysis
from phasebus.telemetry.analysis import time_to_ready
from phasebus.telemetry.formatting import format_duration, format_title
from phasebus.telemetry.journal import RecordedStep


@click.command()
@run_argument
@json_option
@click.pass_context
def blame(context: click.Context, run: str | None, *, as_json: bool) -> None:
    """List the steps by duration, the longest first."""
    with reported():
        recorded = journal_of(context, run)
        if as_json:
            print_json(recorded, blame=[plain(row) for row in analysis.blame(recorded)])
            return
        click.echo(described(recorded))
        print_blame(recorded)


@click.command("critical-path")
@run_argument
@json_option
@click.pass_context
def critical_path(context: click.Context, run: str | None, *, as_json: bool) -> None:
    """Show the chain of steps that set the time to ready, and what an ideal overlap would save."""
    with reported():
        recorded = journal_of(context, run)
        path = analysis.critical_path(recorded)
        if as_json:
            links = [plain(link, seconds=link.seconds) for link in path.links]
            print_json(recorded, critical_path=links, overlap=plain(path.overlap))
            return
        click.echo(described(recorded))
        smallest = time_to_ready(recorded) / 1000
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
@run_argument
@click.option("--shortest", type=click.FloatRange(0), default=0.01, show_default=True, help="In seconds.")
@json_option
@click.pass_context
def gaps(context: click.Context, run: str | None, shortest: float, *, as_json: bool) -> None:
    """List the time that no step covers."""
    with reported():
        recorded = journal_of(context, run)
        placed = tuple(analysis.walk(recorded))
        rows, unnamed = analysis.gaps(recorded, shortest, placed), analysis.unnamed_share(recorded, placed)
        if as_json:
            print_json(recorded, gaps=[plain(row) for row in rows], unnamed_share=unnamed)
            return
        click.echo(described(recorded))
        click.echo(f"{100 * unnamed:.1f} % of the time to ready has no step.")
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
@run_argument
@json_option
@click.pass_context
def stragglers(context: click.Context, run: str | None, *, as_json: bool) -> None:
    """Name the slowest node of each phase and step."""
    with reported():
        recorded = journal_of(context, run)
        rows = analysis.stragglers(recorded)
        if as_json:
            print_json(recorded, stragglers=[plain(row, behind=row.behind) for row in rows])
            return
        click.echo(described(recorded))
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


def _titled(step: RecordedStep) -> str:
    process, module = step.attributes.get("process"), step.attributes.get("module")
    name = format_title(step.kind, step.name) + (f" {module}" if module else "")
    return f"{name} ({process})" if process else name
