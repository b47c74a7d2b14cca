"""The command group `phasebus report`: the run is the first argument, then the report."""

from __future__ import annotations

from typing import Any

import click

from phasebus.initializer.cli.report import caches, differences, files, tables


class _RunFirst(click.Group):
    """A group whose first argument is a run, unless it is the name of one of its commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remove the run from the arguments; add the default command `blame`."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.obj, args = args[0], args[1:]
        if not args or (args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx)):
            args = ["blame", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or fail with the list of commands."""
        if args[0] not in self.commands:
            ctx.fail(f"there is no report {args[0]!r}; there are {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order they were added, not in alphabetical order."""
        return list(self.commands)


@click.group(cls=_RunFirst, subcommand_metavar="[RUN] [COMMAND] [ARGS]…")
def report() -> None:
    """Show where the time of a start-up went, from its journal.

    RUN is a run's id or the beginning of one, the path of a journal, `last`, `previous`, a configuration's fingerprint, a
    model or a node's name; the last run by default. It may also follow the command. The default COMMAND is blame. A run that
    is still going is counted until now. `phasebus runs list` lists the runs.
    """


for command in (
    tables.blame,
    tables.critical_path,
    tables.gaps,
    tables.stragglers,
    caches.caches,
    differences.diff,
    files.plot,
    files.perfetto,
):
    report.add_command(command)
