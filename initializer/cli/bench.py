"""`phasebus bench`: start one or more configurations, or a command, several times, in turns, and compare them."""

from __future__ import annotations

from pathlib import Path

import click

from phasebus.initializer.cli.interrupts import interruptible_imports
from phasebus.initializer.cli.options import StartedThings, percent_option


@click.command(cls=StartedThings)
@click.argument("configs", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--starts", "-n", type=click.IntRange(1), default=10, show_default=True, help="Starts of each.")
@click.option("--into", type=click.Path(path_type=Path), help="Folder for the journals; by default a new one here.")
@click.option(
    "--set", "assignments", metavar="NAME=VALUE", multiple=True, help="Set a field of every configuration, as in `up`."
)
@click.option("--cold", is_flag=True, help="Give each start empty folders for the caches of the engine's compilers.")
@percent_option
@click.pass_context
def bench(
    context: click.Context,
    configs: tuple[Path, ...],
    starts: int,
    into: Path | None,
    assignments: tuple[str, ...],
    percent: float,
    *,
    cold: bool,
) -> None:
    """Start each of CONFIGS several times, in turns, and print how long they took until they were ready.

    A command may follow after `--`: phasebus bench -n 5 -- vllm serve MODEL. The first of two is compared with the second as
    by `phasebus compare`, and the exit code is 3 if the second is slower. Starts take turns, so that a machine that becomes
    slower slows both. The journals are kept: compare those of two days, or two versions, with `phasebus compare FOLDER FOLDER`.
    """
    command: tuple[str, ...] = context.obj
    if not configs and not command:
        raise click.UsageError("name a configuration, or a command after `--`")
    with interruptible_imports():  # here, so that the help of the command needs none of them
        from phasebus.initializer.cli.failures import SLOWER_EXIT_CODE, reported
        from phasebus.initializer.cli.measured.bench import contenders, print_starts

    with reported():
        slower = print_starts(contenders(configs, command, into, assignments, cold=cold), starts, percent / 100)
    if slower:
        context.exit(SLOWER_EXIT_CODE)
