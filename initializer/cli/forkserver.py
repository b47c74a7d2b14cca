"""`phasebus forkserver`: a fork server that stays for the starts to come."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from phasebus.initializer.cli.output import write_err

if TYPE_CHECKING:
    from phasebus.initializer.engines.optional import KeepsForkServer

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group()
def forkserver() -> None:
    """Keep a process that has vLLM imported: `phasebus run` forks whole vLLM commands from it.

    There is one for each installation, user and container. Only the same user can use it.
    """


@forkserver.command()
@click.option(
    "--idle",
    metavar="TIME",
    default="1h",
    callback=lambda _context, _option, value: _seconds(value),
    help="End after this time without a command: 30m, 2h; 0 for never. Default: 1h.",
)
def start(idle: float | None) -> None:
    """Start it, if there is none, and wait until it has imported."""
    state = _call(lambda launcher: launcher.start_fork_server(idle))
    assert state is not None  # noqa: S101  # it has been started
    _show(state)


@forkserver.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show it; the exit code is 1 if there is none."""
    state = _call(lambda launcher: launcher.ask_fork_server("status"))
    if as_json:
        click.echo(json.dumps(state))
    elif state is None:
        click.echo("There is no fork server.")
    else:
        _show(state)
    if state is None:
        raise SystemExit(1)


@forkserver.command()
def stop() -> None:
    """End it; commands that it has forked go on."""
    state = _call(lambda launcher: launcher.ask_fork_server("stop"))
    click.echo("There is no fork server." if state is None else f"The fork server {state['pid']} ends.")


def _call(ask: Any) -> Mapping[str, Any] | None:
    from phasebus.initializer.engines.protocol import EngineError
    from phasebus.initializer.engines.registry import find_fork_server_launcher

    launcher: KeepsForkServer = find_fork_server_launcher()
    try:
        state: Mapping[str, Any] | None = ask(launcher)
    except EngineError as error:
        write_err(f"phasebus: {error}")
        raise SystemExit(1) from None
    return state


def _show(state: Mapping[str, Any]) -> None:
    from phasebus.telemetry.formatting import format_duration

    age = format_duration(max(0.0, time.time() - float(state["since"])))
    idle = (
        "never ends by itself"
        if state["idle_seconds"] is None
        else f"ends after {format_duration(state['idle_seconds'])} without a command"
    )
    click.echo(f"The fork server {state['pid']} has run for {age}, and {idle}.")
    if not state["imported"]:
        click.echo("It is still importing.")
    running = len(state["commands"])
    click.echo(f"It has forked {state['forks']} commands, of which {running} run.")
    click.echo(f"Its imports took {format_duration(state['import_seconds'])}, the longest were:")
    for each in sorted(state["imports"], key=lambda each: -each["seconds"]):
        click.echo(f"  {format_duration(each['seconds']):>8}  {each['module']}")


def _seconds(text: str) -> float | None:
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no time such as 90s, 30m or 2h")
    return float(int(found[1]) * _UNITS[found[2]]) or None
