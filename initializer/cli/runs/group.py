"""The command group `phasebus runs`."""

from __future__ import annotations

from collections.abc import Mapping

import click

from phasebus.initializer.cli.lazy_group import LazyGroup

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("commands:list_runs", "List the last runs, the newest first."),
    "show": ("commands:show", "Show a run's configuration, and what differs from the one before."),
    "prune": ("commands:prune_runs", "Remove old runs."),
}
"""The module and function of each command in this package, and its line in the help."""


class _Runs(LazyGroup):
    """The commands about the runs that are kept."""

    table = _COMMANDS
    package = __package__ or ""


@click.group(cls=_Runs)
def runs() -> None:
    """List, show and prune the runs that are kept: their journals, in the state folder of this user.

    Runs with the same configuration (model, arguments, versions, machine) have the same fingerprint. Old runs are removed
    at each start: beyond the last 200 (PHASEBUS_KEEP_RUNS), 90 days (PHASEBUS_KEEP_DAYS) or 1 GB.
    """
