"""The commands `phasebus runs list`, `show` and `prune`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from statistics import median
from typing import Any

import click
from rich.filesize import decimal

from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.options import json_option
from phasebus.initializer.cli.report.show import Column, print_table
from phasebus.telemetry.formatting import format_duration
from phasebus.telemetry.history import (
    Configuration,
    Retention,
    StoredRun,
    find_run,
    prune,
    recorded_runs,
    run_before,
)
from phasebus.telemetry.journal import RunSummary, runs_folder, summarize


@click.command("list")
@click.option("--number", "-n", type=click.IntRange(1), default=20, show_default=True, help="Number of runs shown.")
@click.option("--configuration", "-c", help="Fingerprint, or the beginning of one: only its runs.")
@json_option
def list_runs(number: int, configuration: str | None, *, as_json: bool) -> None:
    """List the last runs, the newest first."""
    with reported():
        found = (each for each in recorded_runs(most=10**9) if _fingerprint(each).startswith(configuration or ""))
        shown = list(islice(found, number))
        if as_json:
            click.echo(json.dumps([_plain(each) for each in shown], indent=2, ensure_ascii=False))
            return
        if not shown:
            click.echo(f"no runs in {runs_folder()}")
            return
        columns = [Column("run", "id"), Column("began", "id", 4), Column("outcome", "id"), Column("seconds", "s")]
        columns += [Column("configuration", "id", 1), Column("what", dropped=3), Column("model", dropped=2)]
        print_table(columns, [_row(each) for each in shown])


@click.command()
@click.argument("run", required=False)
@json_option
def show(run: str | None, *, as_json: bool) -> None:
    """Show a run's configuration, and what differs from the run before it with the same model.

    RUN is an id or the beginning of one, a path, `last`, `previous`, a fingerprint, a model or the name of a node; by
    default the last run.
    """
    with reported():
        summary = summarize(find_run(run))
        configuration = Configuration.from_attributes(summary.attributes)
        others = [each for each in recorded_runs(summary.path.parent) if each.run != summary.run]
        same = [
            each for each in others if configuration is not None and _fingerprint(each) == configuration.fingerprint
        ]
        ready = [each.seconds for each in same if each.outcome == "finished" and each.seconds is not None]
        before = run_before(summary)
        differing = _difference(before, configuration)
        if as_json:
            content = _plain(summary) | {
                "factors": dict(configuration.factors) if configuration else {},
                "usual_seconds": median(ready) if ready else None,
                "usual_runs": len(ready),
                "before": before.run if before is not None else None,
                "changed": {name: {"before": old, "now": new} for name, (old, new) in differing.items()},
            }
            click.echo(json.dumps(content, indent=2, ensure_ascii=False))
            return
        lines = {
            "run": summary.run,
            "journal": summary.path,
            "began": _local_time(summary),
            "outcome": f"{summary.outcome or summary.state}{_after(summary.seconds)}",
            "usual": f"{format_duration(median(ready))}, the median of {len(ready)} other run{'' if len(ready) == 1 else 's'}"
            if ready
            else "unknown",
            "configuration": configuration.fingerprint if configuration else "not recorded",
        }
        for name, value in lines.items():
            click.echo(f"{name:<14} {value}")
        for name, factor in (configuration.factors if configuration else {}).items():
            click.echo(f"  {name:<32} {factor}")
        if before is not None and differing:
            click.echo(f"changed since {before.run}, the run before it with this model:")
            print_table(
                [Column("factor"), Column("before"), Column("now")],
                [(name, *pair) for name, pair in differing.items()],
            )


@click.command("prune")
@click.option(
    "--keep", type=click.IntRange(0), help="Number of runs that are kept; PHASEBUS_KEEP_RUNS or 200 by default."
)
@click.option(
    "--days", type=click.FloatRange(0), help="Age up to which they are kept; PHASEBUS_KEEP_DAYS or 90 by default."
)
@click.option("--dry-run", is_flag=True, help="Only list the runs that would be removed.")
def prune_runs(keep: int | None, days: float | None, *, dry_run: bool) -> None:
    """Remove old runs: beyond a number, an age, or 1 GB in all. Runs of the last hour and running ones are kept."""
    with reported():
        default = Retention.from_environment()
        retention = Retention(runs=default.runs if keep is None else keep, days=default.days if days is None else days)
        removed = prune(retention, dry_run=dry_run)
        for each in removed:
            click.echo(f"{each.run}  {decimal(each.size)}")
        click.echo(f"{'would remove' if dry_run else 'removed'} {_count(removed)} from {runs_folder()}")


def _count(removed: Sequence[StoredRun]) -> str:
    size = decimal(sum(each.size for each in removed))
    return f"{len(removed)} run{'' if len(removed) == 1 else 's'} ({size})"


def _fingerprint(run: RunSummary) -> str:
    return str(run.attributes.get("configuration", ""))


def _difference(before: RunSummary | None, now: Configuration | None) -> dict[str, tuple[Any, Any]]:
    earlier = None if before is None else Configuration.from_attributes(before.attributes)
    return {} if earlier is None or now is None else earlier.difference(now)


def _row(run: RunSummary) -> tuple[object, ...]:
    what = f"{run.kind} {run.name}".strip()
    return run.run, _local_time(run), run.outcome or run.state, run.seconds, _fingerprint(run) or None, what, run.model


def _local_time(run: RunSummary) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.start_ns / 1e9))


def _after(seconds: float | None) -> str:
    return "" if seconds is None else f" after {format_duration(seconds)}"


def _plain(run: RunSummary) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(run).items() if name not in ("attributes", "step")}
    return fields | {"path": str(run.path), "model": run.model, "configuration": _fingerprint(run) or None}
