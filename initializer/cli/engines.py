"""`phasebus engines`: the installed engines."""

from __future__ import annotations

import click

from phasebus.initializer.cli.failures import reported


@click.command(short_help="List the installed engines.")
def engines() -> None:
    """List the names that `engine:` in a configuration accepts, with the package of each engine."""
    from phasebus.initializer.engines.registry import installed_engines

    with reported():
        found = installed_engines()
        width = max(len(engine.name) for engine in found)
        for engine in found:
            click.echo(f"{engine.name:<{width}}  {engine.package}  ({engine.value})")
