"""Starting one or more configurations, or a command, several times, in turns, and compare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import click

from phasebus.initializer.cli.measured.comparison import differing_factors, print_comparison, series
from phasebus.initializer.cli.measured.starts import (
    Contender,
    arguments_of,
    arguments_of_command,
    new_folder,
    start_in_turns,
)
from phasebus.telemetry import analysis
from phasebus.telemetry.analysis import time_to_ready
from phasebus.telemetry.formatting import format_duration


def print_starts(contenders: Sequence[Contender], starts: int, smallest_share: float) -> bool:
    """Start each contender several times, print how long they took, and compare two with each other.

    Args:
        contenders: What is started.
        starts: The number of starts of each.
        smallest_share: The smallest shift that counts, as a share of the duration before.

    Returns:
        Whether there are two, and the second one is slower.

    Raises:
        StartsError: A start fails.
    """
    start_in_turns(contenders, starts)
    runs = [series(str(each.folder)) for each in contenders]
    for each, ready in zip(contenders, runs, strict=True):
        seconds = sorted(map(time_to_ready, ready))
        middle = format_duration(median(seconds))
        spread = f"{format_duration(seconds[0])} to {format_duration(seconds[-1])}"
        click.echo(f"{each.title}: ready in {middle} ({spread}; {len(seconds)} starts); journals in {each.folder}")
    if len(contenders) != 2:
        return False
    comparison = analysis.compare(runs[0], runs[1], smallest_share)
    factors = differing_factors(runs[0], runs[1])
    print_comparison(comparison, contenders[0].title, contenders[1].title, factors)
    return comparison.slower


def contenders(
    configs: Sequence[Path], command: Sequence[str], into: Path | None, assignments: Sequence[str], *, cold: bool
) -> Sequence[Contender]:
    """Return what is started: each of `configs`, and `command` unless it is empty.

    Args:
        configs: The paths of configurations.
        command: A command, as for ``phasebus run``.
        into: The folder for the journals; None for a new one here.
        assignments: Values for fields of each configuration, as in ``phasebus up --set``.
        cold: Whether each start has empty folders for the caches of the engine.

    Raises:
        StartsError: The folder is not empty.
    """
    folder = new_folder(into, "phasebus-bench")
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
