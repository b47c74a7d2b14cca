"""`phasebus advise`: what would shorten the next start, by how much, and whether a measurement agrees."""

from __future__ import annotations

import os
from pathlib import Path

import click

from phasebus.initializer.cli.interrupts import interruptible_imports
from phasebus.initializer.cli.options import StartedThings, json_option


@click.command(cls=StartedThings)
@click.argument("runs", nargs=-1)
@click.option("--measure", is_flag=True, help="Start RUNS, a configuration or a command after `--`, with and without.")
@click.option(
    "--starts", "-n", type=click.IntRange(1), default=3, show_default=True, help="Starts of each, to measure."
)
@click.option("--into", type=click.Path(path_type=Path), help="Folder for the journals; by default a new one here.")
@click.option("--cold", is_flag=True, help="Give the starts without a change empty caches, as in a fresh container.")
@json_option
@click.pass_context
def advise(
    context: click.Context,
    runs: tuple[str, ...],
    starts: int,
    into: Path | None,
    *,
    measure: bool,
    cold: bool,
    as_json: bool,
) -> None:
    """Name what would shorten the next start, with how to do it, what it costs, and the seconds that it saves.

    RUNS are runs of one configuration, by default the last one. They are replayed with the change: what waited for a
    shortened step moves forward, up to what else it waited for. With several runs, the smallest saving counts. A saving
    that is smaller than the differences between starts of the configuration is not advised.

    With --measure, a configuration (phasebus advise --measure CONFIG) or a command (… --measure -- vllm serve MODEL) is
    started with and without each change that can be made from here, in turns, and both figures are printed.
    """
    command: tuple[str, ...] = context.obj
    if command and not measure:
        raise click.UsageError("a command is only started with --measure")
    if measure and len(runs) + bool(command) != 1:
        raise click.UsageError("--measure needs one configuration, or a command after `--`")
    if measure and runs and not os.path.isfile(runs[0]):
        raise click.UsageError(f"there is no configuration {runs[0]}")
    with interruptible_imports():  # here, so that the help of the command needs none of them
        from phasebus.initializer.cli.failures import reported
        from phasebus.initializer.cli.measured.advice import measure_advice, print_advice

    with reported():
        if measure:
            measure_advice(runs[0] if runs else None, command, starts, into, cold=cold)
        else:
            print_advice(runs, as_json=as_json)
