"""The report on caches: which ones a start found filled, and what has changed for those that it did not."""

from __future__ import annotations

import click

from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.options import json_option
from phasebus.initializer.cli.report.journals import described, journal_of, print_json, run_argument
from phasebus.initializer.cli.report.show import Column, print_table
from phasebus.telemetry import analysis
from phasebus.telemetry.formatting import format_title
from phasebus.telemetry.history import run_before
from phasebus.telemetry.journal import Run, read_journal


@click.command()
@run_argument
@json_option
@click.pass_context
def caches(context: click.Context, run: str | None, *, as_json: bool) -> None:
    """Show which caches the start found filled.

    For a miss, it names the factors of the cache's key (a version, a variable, a part of the configuration) that have changed
    since the run before it with the same model.
    """
    with reported():
        recorded = journal_of(context, run)
        before, uses = compared_uses(recorded)
        if as_json:
            rows = [
                {
                    "cache": use.cache,
                    "outcome": "hit" if use.hit else "miss",
                    "step": use.step.name,
                    "process": use.step.attributes.get("process"),
                    "changed": None
                    if use.changes is None
                    else {name: {"before": old, "now": new} for name, (old, new) in use.changes.items()},
                    "factors": dict(use.factors),
                }
                for use in uses
            ]
            print_json(recorded, before=before.run if before is not None else None, caches=rows)
            return
        click.echo(described(recorded))
        if not uses:
            click.echo("No step has reported the use of a cache.")
            return
        if before is not None:
            click.echo(f"compared with {before.run}")
        print_table([Column("cache"), Column("outcome"), Column("in"), Column("why")], [_row(use) for use in uses])


def compared_uses(run: Run) -> tuple[Run | None, list[analysis.CacheUse]]:
    """Return the run before `run` with the same model, and the uses of caches by `run`, compared with it."""
    earlier = run_before(run)
    before = None if earlier is None else read_journal(earlier.path, until_ready=True)
    return before, list(analysis.cache_uses(run, before))


def _row(use: analysis.CacheUse) -> tuple[object, ...]:
    process = use.step.attributes.get("process")
    step = format_title(use.step.kind, use.step.name)
    where = f"{step} ({process})" if process else step
    return use.cache.replace("_", " "), "hit" if use.hit else "miss", where, use.explanation
