"""`phasebus compare`: whether the starts of one series are slower than those of another, and in which step."""

from __future__ import annotations

import click

from phasebus.initializer.cli.interrupts import interruptible_imports
from phasebus.initializer.cli.options import json_option, percent_option


@click.command()
@click.argument("before")
@click.argument("after")
@percent_option
@json_option
@click.pass_context
def compare(context: click.Context, before: str, after: str, percent: float, *, as_json: bool) -> None:
    """Compare the starts of BEFORE with those of AFTER, by a rank test for each step.

    Each is a folder of journals, such as `phasebus bench` writes, or a configuration's fingerprint, for all its runs in the
    history. Starts that failed are left out. The exit code is 3 if AFTER is slower than chance explains: of 100 comparisons
    of equal series, at most one is called slower.
    """
    with interruptible_imports():  # here, so that the help of the command needs none of them
        from phasebus.initializer.cli.failures import SLOWER_EXIT_CODE, reported
        from phasebus.initializer.cli.measured.comparison import print_series

    with reported():
        slower = print_series(before, after, percent / 100, as_json=as_json)
    if slower:
        context.exit(SLOWER_EXIT_CODE)
