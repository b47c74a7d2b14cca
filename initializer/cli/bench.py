"""`phasebus bench`: start one or more configurations, or a command, several times, in turns, and compare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import click

from phasebus.initializer.cli.comparing import differing_factors, percent_option, print_comparison, series
from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.measured_starts import (
    Contender,
    StartedThings,
    arguments_of,
    arguments_of_command,
    new_folder,
    start_in_turns,
)
from phasebus.initializer.cli.report.differences import SLOWER_EXIT_CODE
from phasebus.telemetry import analysis
from phasebus.telemetry.analysis import time_to_ready
from phasebus.telemetry.formatting import format_duration


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
    comparison = None
    with reported():
        contenders = _contenders(configs, command, new_folder(into, "phasebus-bench"), assignments, cold=cold)
        start_in_turns(contenders, starts)
        runs = [series(str(each.folder)) for each in contenders]
        for each, ready in zip(contenders, runs, strict=True):
            seconds = sorted(map(time_to_ready, ready))
            middle = format_duration(median(seconds))
            spread = f"{format_duration(seconds[0])} to {format_duration(seconds[-1])}"
            click.echo(f"{each.title}: ready in {middle} ({spread}; {len(seconds)} starts); journals in {each.folder}")
        if len(contenders) == 2:
            comparison = analysis.compare(runs[0], runs[1], percent / 100)
            factors = differing_factors(runs[0], runs[1])
            print_comparison(comparison, contenders[0].title, contenders[1].title, factors)
    if comparison is not None and comparison.slower:
        context.exit(SLOWER_EXIT_CODE)


def _contenders(
    configs: Sequence[Path], command: Sequence[str], folder: Path, assignments: Sequence[str], *, cold: bool
) -> Sequence[Contender]:
    names = [config.stem for config in configs]
    found = [
        Contender(
            title=str(config),
            arguments=arguments_of(config, assignments),
            folder=folder / (name if names.count(name) == 1 else f"{number}-{name}"),
            cold=cold,
        )
        for number, (config, name) in enumerate(zip(configs, names, strict=True), 1)
    ]
    if command:
        title = " ".join(command)
        found.append(
            Contender(title=title, arguments=arguments_of_command(command), folder=folder / "command", cold=cold)
        )
    return found
