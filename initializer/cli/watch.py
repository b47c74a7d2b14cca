"""`phasebus watch`: show a running start."""

from __future__ import annotations

import click

from phasebus.initializer.cli.interrupts import interruptible_imports


@click.command()
@click.argument("url", default="http://127.0.0.1:9464")
@click.option("--until-ready", is_flag=True, help="End when the start is ready (exit code 0) or has failed (1).")
def watch(url: str, *, until_ready: bool) -> None:
    """Show a running start, served at URL: as a tree on a terminal, as lines elsewhere.

    It ends with Ctrl-C or with the start. The exit code is 0 if the start became ready, else 1. A URL of this machine is
    accessed without a proxy.
    """
    with interruptible_imports():  # here, so that the help of the command needs none of them
        from phasebus.initializer.cli.failures import reported
        from phasebus.initializer.cli.watching import follow

    with reported():
        ready = follow(url, until_ready=until_ready)
    if not ready:
        raise SystemExit(1)
