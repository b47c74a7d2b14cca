"""Finding the journal of a report, and describing the state of its run."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import click

from phasebus.telemetry.analysis import time_to_ready
from phasebus.telemetry.formatting import format_duration
from phasebus.telemetry.history import find_run
from phasebus.telemetry.journal import JournalError, Run, read_journal

C = TypeVar("C", bound=Callable[..., Any])


def run_argument(command: C) -> C:
    """Add the argument RUN to a report."""
    return click.argument("run", required=False)(command)


def journal_of(context: click.Context, run: str | None = None) -> Run:
    """Return the run that the arguments of `phasebus report` name.

    Args:
        context: The context of the report's command; its object is a run that was named before the report.
        run: A run that was named after it.

    Raises:
        JournalError: There is no such run, its journal cannot be read, or two were named.
    """
    wanted: str | None = run or context.obj
    if run is not None and context.obj is not None:
        raise JournalError(f"a report is of one run, not of {context.obj!r} and {run!r}; `diff` compares two")
    try:
        found = read_journal(find_run(wanted))
    except JournalError as error:
        commands = context.parent.command.list_commands(context) if context.parent else []  # type: ignore[attr-defined]
        for close in difflib.get_close_matches(wanted or "", commands, n=1):
            error.add_note(f"did you mean `phasebus report {close}`?")
        raise
    if found.skipped:
        lines = "1 line" if found.skipped == 1 else f"{found.skipped} lines"
        click.echo(f"{lines} of the journal could not be read; the report lacks what they recorded", err=True)
    return found


def described(run: Run) -> str:
    """Return a line with the run's id and state."""
    seconds = format_duration(time_to_ready(run))
    root = run.root
    if root is None:
        return f"run {run.run}: no step has begun"
    if run.state == "running" and root.outcome == "running":
        return f"run {run.run}: still starting, for {seconds} so far"
    if root.outcome == "finished":
        return f"run {run.run}: ready in {seconds}"
    if run.state == "died":
        return f"run {run.run}: its process died; its last event was {seconds} after its beginning"
    if root.outcome == "running":
        return f"run {run.run}: its journal lacks its end, as after a full disk; the last event was {seconds} after its beginning"
    return f"run {run.run}: {root.outcome} after {seconds}" + (f": {root.error}" if root.error else "")


def print_json(run: Run, **content: object) -> None:
    """Print `content` as JSON, with the run's ids and state."""
    about = {
        "run": run.run,
        "node": run.node,
        "trace": run.trace,
        "phasebus": run.phasebus,
        "state": run.state,
        "outcome": run.root.outcome if run.root is not None else None,
        "seconds": time_to_ready(run),
    }
    click.echo(json.dumps(about | content, indent=2, ensure_ascii=False))


def plain(row: Any, **more: object) -> dict[str, Any]:
    """Return a row of an analysis as data for JSON."""
    return asdict(row) | more
