"""The reports that are files for other programs: a picture or page for a browser, a trace for a viewer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from phasebus.bus import PhasebusError
from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.options import json_option
from phasebus.initializer.cli.report.journals import journal_of, print_json, run_argument
from phasebus.telemetry import analysis
from phasebus.telemetry.history import usual_runs
from phasebus.telemetry.journal import JournalError, Run
from phasebus.telemetry.service.page import page_of


@click.command()
@run_argument
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The file; by default RUN.svg here.")
@json_option
@click.pass_context
def plot(context: click.Context, run: str | None, output: Path | None, *, as_json: bool) -> None:
    """Draw the run as one picture (SVG), or as one page if the file's name ends in .html; - prints the picture."""
    with reported():
        recorded = journal_of(context, run)
        if as_json:
            print_json(recorded, steps=[_placed(at) for at in analysis.walk(recorded)])
            return
        to = output or Path(f"{recorded.run}.svg")
        if to.suffix == ".html":
            _write(page_of(analysis.page_state(recorded, _earlier(recorded))), to)
        else:
            _write(analysis.plot(recorded), to)


@click.command()
@run_argument
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The file; by default RUN.perfetto.json here.")
@click.option("--json", "as_json", is_flag=True, help="Print it instead of writing a file.")
@click.pass_context
def perfetto(context: click.Context, run: str | None, output: Path | None, *, as_json: bool) -> None:
    """Write the run as a Chrome trace, which ui.perfetto.dev and chrome://tracing open."""
    with reported():
        recorded = journal_of(context, run)
        trace = json.dumps(analysis.perfetto(recorded), ensure_ascii=False)
        _write(trace + "\n", Path("-") if as_json else output or Path(f"{recorded.run}.perfetto.json"))


def _earlier(run: Run) -> Sequence[Run]:
    """Return earlier runs with the same configuration, for the usual durations."""
    try:
        return usual_runs(run)
    except JournalError:
        return ()


def _placed(at: analysis.PlacedStep) -> dict[str, object]:
    step = at.step
    return {
        "id": step.id,
        "inside": at.outer.step.id if at.outer is not None else None,
        "depth": at.depth,
        "node": at.node,
        "kind": step.kind,
        "name": step.name,
        "start_ns": at.start_ns,
        "seconds": at.seconds,
        "outcome": step.outcome,
        "error": step.error,
        "attributes": dict(step.attributes),
    }


def _write(content: str, to: Path) -> None:
    if str(to) == "-":
        click.echo(content, nl=False)
        return
    try:
        to.write_text(content, encoding="utf-8")
    except OSError as error:
        raise PhasebusError(f"{to} cannot be written: {error.strerror}; name another file with --output") from error
    click.echo(f"written to {to}", err=True)
