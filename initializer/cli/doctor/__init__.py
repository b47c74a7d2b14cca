"""`phasebus doctor`: checks of the environment that phasebus runs in, for the first lines of an issue report.

It imports neither vLLM nor Ray, connects only to the configured collector, and writes nothing to the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import click

from phasebus.initializer.cli.doctor.findings import Finding, print_and_exit
from phasebus.telemetry.redaction import redact


@click.command(short_help="Check the environment for problems.")
@click.option(
    "--json", "as_data", is_flag=True, help="Print one JSON object with the findings and the number of problems."
)
def doctor(*, as_data: bool) -> None:
    """Check versions, the vLLM plugin, variables, ports, folders, the collector and the clock.

    Lines marked ! are problems to fix, lines marked - are possible surprises. The exit code is 1 if there is a problem.
    Secrets are masked, so the output can be pasted into an issue.
    """
    print_and_exit(list(examine()), as_data=as_data)


def examine(checks: Iterable[Callable[[], Iterable[Finding]]] | None = None) -> Iterator[Finding]:
    """Run the checks, by default all, and yield their findings; a check that fails becomes a finding."""
    for check in _all_checks() if checks is None else checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001  # the other checks still run
            name = check.__name__.removeprefix("find_")
            yield Finding(name, "check", f"failed: {type(error).__name__}: {redact(str(error))}", "note")


def _all_checks() -> tuple[Callable[[], Iterable[Finding]], ...]:
    """Return all checks; they are imported here, so that the help of the command needs none of them."""
    from phasebus.initializer.cli.doctor import machine, software, variables
    from phasebus.initializer.cli.doctor.bytecode import find_bytecode

    return (
        software.find_versions,
        find_bytecode,
        software.find_seams,
        software.find_plugin,
        variables.find_variables,
        variables.find_service_links,
        variables.find_stray_characters,
        variables.find_proxies,
        machine.find_ports,
        variables.find_user,
        machine.find_folders,
        machine.find_collector,
        machine.find_hardware,
        machine.find_clock,
    )
