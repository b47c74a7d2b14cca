"""The command line: one file a command; what `up` and `demo` share is in `start`."""

from __future__ import annotations

import click

from phasebus import __version__
from phasebus.initializer.cli.demo import demo
from phasebus.initializer.cli.engines import engines
from phasebus.initializer.cli.report import report
from phasebus.initializer.cli.run import run
from phasebus.initializer.cli.up import up
from phasebus.initializer.cli.watch import watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="phasebus")
def main() -> None:
    """See, steer and trace the start-up of an LLM cluster."""


main.add_command(demo)
main.add_command(engines)
main.add_command(run)
main.add_command(up)
main.add_command(report)
main.add_command(watch)
