"""`phasebus run`: watch any vLLM command."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import anyio
import click

from phasebus.bus import Bus
from phasebus.initializer.cli.failures import described, reported
from phasebus.initializer.cli.signals import Handler, handled_by
from phasebus.initializer.cli.terminal import tell_people
from phasebus.initializer.engines import EngineError
from phasebus.initializer.node.command import Command, CommandStart
from phasebus.initializer.pipeline.wiring import observe_all
from phasebus.telemetry import Telemetry

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_FROM_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)


@click.command(short_help="Run a vLLM command as it is, traced.", context_settings={"ignore_unknown_options": True})
@click.option("--download", metavar="SOURCE", help="A model to fetch while the command imports: hf://org/name, s3://…")
@click.option("--destination", type=click.Path(path_type=Path), help="The folder the model is fetched into.")
@click.option("--port", default=9464, show_default=True, type=click.IntRange(0, 65535), help="Port of /metrics.")
@click.option("--verbose", "-v", is_flag=True, help="Say on standard error what happens.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(download: str | None, destination: Path | None, port: int, *, verbose: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND, a vLLM command such as `vllm serve MODEL`, and watch it start.

    Its output, its signals and its exit code are its own. While it loads, /metrics and /readyz answer on the port.
    """
    with reported(tracebacks=verbose):
        telemetry = Telemetry(port=port)
        started = Command(arguments=command, download=download, destination=destination)
        code = anyio.run(_run, started, telemetry, verbose)
    sys.exit(code)


async def _run(command: Command, telemetry: Telemetry, verbose: bool) -> int:
    """Run `command` to its end; return its exit code, as a shell tells it."""
    async with telemetry, Bus("run", timing=True) as bus:
        journal = observe_all(bus, telemetry)
        if verbose:
            tell_people(bus)
        if (verbose or sys.stderr.isatty()) and telemetry.service is not None:
            click.echo(f"phasebus: metrics at {telemetry.service.url}/metrics, journal {journal}", err=True)
        start = CommandStart(command, bus, telemetry)
        with handled_by(_forwarding(start), _FORWARDED):
            try:
                process = await start.run()
            except EngineError as error:
                if start.process is None:
                    raise
                process = start.process
                for line in described(error):
                    click.echo(line, err=True)
            code = await process.wait()
    return code if code >= 0 else 128 - code


def _forwarding(start: CommandStart) -> Handler:
    """Return what hands the signals that come to this process on to the command."""

    def forward(number: int, _: FrameType | None) -> None:
        process = start.process
        if process is None and start.is_starting:
            start.signals.append(number)
            return
        if process is None:
            raise KeyboardInterrupt
        if process.returncode is None and not (number in _FROM_KEYBOARD and _in_foreground()):
            process.send_signal(signal.Signals(number))

    return forward


def _in_foreground() -> bool:
    """Return whether a terminal's keys reach this process, and so the command, which is of the same group."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
