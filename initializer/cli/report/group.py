"""The command group `phasebus report`: the run is the first argument, then the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from phasebus.initializer.cli.lazy_group import LazyGroup

_REPORTS: Mapping[str, tuple[str, str]] = {
    "blame": ("tables:blame", "List the steps by duration, the longest first."),
    "critical-path": ("tables:critical_path", "Show the chain of steps that set the time to ready."),
    "gaps": ("tables:gaps", "List the time that no step covers."),
    "stragglers": ("tables:stragglers", "Name the slowest node of each phase and step."),
    "caches": ("caches:caches", "Show which caches were hit, and why others were missed."),
    "diff": ("differences:diff", "Compare the durations of two runs, or of a run with the usual ones."),
    "plot": ("files:plot", "Draw the run as a picture or a page."),
    "perfetto": ("files:perfetto", "Write the run as a trace for ui.perfetto.dev."),
}
"""The module and function of each report in this package, and its line in the help."""


class _RunFirst(LazyGroup):
    """A group whose first argument is a run, unless it is the name of one of its commands."""

    table = _REPORTS
    package = __package__ or ""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remove the run from the arguments; add the default command `blame`."""
        if args and not args[0].startswith("-") and args[0] not in self.table:
            ctx.obj, args = args[0], args[1:]
        if not args or (args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx)):
            args = ["blame", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or fail with the list of commands."""
        if args[0] not in self.table:
            ctx.fail(f"there is no report {args[0]!r}; there are {', '.join(self.table)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_RunFirst, subcommand_metavar="[RUN] [COMMAND] [ARGS]…")
def report() -> None:
    """Show where the time of a start-up went, from its journal.

    RUN is a run's id or the beginning of one, the path of a journal, `last`, `previous`, a configuration's fingerprint, a
    model or a node's name; the last run by default. It may also follow the command. The default COMMAND is blame. A run that
    is still going is counted until now. `phasebus runs list` lists the runs.
    """
