"""`phasebus bench`: start one or more configurations several times, in turns, and compare them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from phasebus.bus import PhasebusError
from phasebus.initializer.cli.comparing import percent_option, print_comparison, series
from phasebus.initializer.cli.failures import Interrupted, reported
from phasebus.initializer.cli.report.differences import SLOWER_EXIT_CODE
from phasebus.initializer.engines.optional import CachesInFolders
from phasebus.initializer.engines.registry import engine_names, find_launcher
from phasebus.telemetry import analysis
from phasebus.telemetry.analysis import time_to_ready
from phasebus.telemetry.formatting import format_duration

_LAST_LINES = 5


class BenchError(PhasebusError):
    """Raised when a start that is measured fails."""


@dataclass(frozen=True)
class _Contender:
    """One of the configurations, and where its journals are written."""

    config: Path
    folder: Path


@click.command()
@click.argument("configs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
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

    The first of two configurations is compared with the second as by `phasebus compare`, and the exit code is 3 if the
    second is slower. Starts take turns, so that a machine that becomes slower slows both. The journals are kept: compare
    those of two days, or two versions, with `phasebus compare FOLDER FOLDER`.
    """
    with reported():
        folder = into or Path(time.strftime("phasebus-bench-%Y%m%dT%H%M%S"))
        contenders = _contenders(configs, folder)
        _start_in_turns(contenders, starts, assignments, cold=cold)
        runs = [series(str(each.folder)) for each in contenders]
        for each, ready in zip(contenders, runs, strict=True):
            seconds = sorted(map(time_to_ready, ready))
            middle = format_duration(seconds[len(seconds) // 2])
            spread = f"{format_duration(seconds[0])} to {format_duration(seconds[-1])}"
            click.echo(f"{each.config}: ready in {middle} ({spread}; {len(seconds)} starts); journals in {each.folder}")
        if len(contenders) != 2:
            return
        comparison = analysis.compare(runs[0], runs[1], percent / 100)
        print_comparison(comparison, *(str(each.config) for each in contenders))
    if comparison.slower:
        context.exit(SLOWER_EXIT_CODE)


def _contenders(configs: Sequence[Path], folder: Path) -> Sequence[_Contender]:
    if folder.exists() and any(folder.iterdir()):
        raise BenchError(f"the folder {folder} is not empty; choose another one with --into")
    names = [config.stem for config in configs]
    folders = [name if names.count(name) == 1 else f"{number}-{name}" for number, name in enumerate(names, 1)]
    return [_Contender(config, folder / name) for config, name in zip(configs, folders, strict=True)]


def _start_in_turns(contenders: Sequence[_Contender], starts: int, assignments: Sequence[str], *, cold: bool) -> None:
    for number in range(starts):
        for each in contenders if number % 2 == 0 else contenders[::-1]:
            with _environment(each.folder, cold=cold) as environment:
                _start(each, assignments, environment)
            last = series(str(each.folder))[-1]
            click.echo(
                f"{number + 1}/{starts}  {each.config}: ready in {format_duration(time_to_ready(last))}", err=True
            )


@contextmanager
def _environment(folder: Path, *, cold: bool) -> Iterator[Mapping[str, str]]:
    variables = {**os.environ, "PHASEBUS_STATE_DIR": str(folder.absolute())}
    if not cold:
        yield variables
        return
    with tempfile.TemporaryDirectory(prefix="phasebus-cold-") as caches:
        for name in engine_names():
            launcher = find_launcher(name)
            if isinstance(launcher, CachesInFolders):
                variables.update(launcher.cache_variables(caches))
        yield variables


def _start(contender: _Contender, assignments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start a configuration, and end it when it is ready.

    Raises:
        BenchError: It did not become ready.
        Interrupted: It was interrupted.
    """
    options = [option for each in assignments for option in ("--set", each)]
    command = [sys.executable, "-m", "phasebus.initializer.cli", "up", str(contender.config), "--once", *options]
    with subprocess.Popen(  # noqa: S603  # phasebus itself
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        try:
            _, printed = process.communicate()
        except KeyboardInterrupt:  # the terminal sent it to the start as well, which ends what it started
            process.wait()
            raise Interrupted(signal.SIGINT) from None
    if process.returncode:
        lines = "\n  ".join(printed.splitlines()[-_LAST_LINES:])
        raise BenchError(f"{contender.config} did not become ready (exit code {process.returncode}):\n  {lines}")
