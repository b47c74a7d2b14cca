"""Starting configurations and commands again and again, in turns, to measure how long they take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from phasebus.bus import PhasebusError
from phasebus.initializer.cli.failures import Interrupted
from phasebus.initializer.cli.measured.comparison import series
from phasebus.initializer.engines.optional import CachesInFolders
from phasebus.initializer.engines.registry import engine_names, find_launcher
from phasebus.telemetry.analysis import time_to_ready
from phasebus.telemetry.formatting import format_duration
from phasebus.telemetry.journal import JournalError, summarize

_PHASEBUS = (sys.executable, "-m", "phasebus.initializer.cli")
_LAST_LINES = 5
_POLL_SECONDS = 0.2


class StartsError(PhasebusError):
    """Raised when a start that is measured fails."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What is started, and where its journals are written.

    Attributes:
        title: Its name in the output.
        arguments: Of ``phasebus``: ``up CONFIG --once …`` or ``run … -- COMMAND``.
        folder: The folder of its journals.
        cold: Whether each start has empty folders for the caches of the engine.
        before: Arguments of ``phasebus`` that are run before each start; empty for none.
        after: Likewise after it.
        variables: Environment variables that it is started with, besides those of this process.
    """

    title: str
    arguments: Sequence[str]
    folder: Path
    cold: bool = False
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def new_folder(into: Path | None, prefix: str) -> Path:
    """Return the folder for journals: `into`, or a new one in the current folder.

    Raises:
        StartsError: `into` is not empty.
    """
    folder = into or Path(time.strftime(f"{prefix}-%Y%m%dT%H%M%S"))
    if os.path.exists(folder) and any(folder.iterdir()):
        raise StartsError(f"the folder {folder} is not empty; choose another one with --into")
    return folder


def arguments_of(config: Path, assignments: Sequence[str] = ()) -> Sequence[str]:
    """Return the arguments that start a configuration once."""
    return ["up", str(config), "--once", *(option for each in assignments for option in ("--set", each))]


def arguments_of_command(command: Sequence[str]) -> Sequence[str]:
    """Return the arguments that run a command."""
    return ["run", "--port", "0", "--", *command]


def start_in_turns(contenders: Sequence[Contender], starts: int) -> None:
    """Start each of `contenders` `starts` times, one after the other, in alternating order; print each time to ready.

    Raises:
        StartsError: One of them did not become ready.
        Interrupted: It was interrupted.
    """
    for number in range(starts):
        for each in contenders if number % 2 == 0 else contenders[::-1]:
            seconds = start_once(each)
            click.echo(f"{number + 1}/{starts}  {each.title}: ready in {format_duration(seconds)}", err=True)


def start_once(contender: Contender) -> float:
    """Start `contender` once, and end it when it is ready; return the time to ready in seconds.

    Raises:
        StartsError: It did not become ready.
        Interrupted: It was interrupted.
    """
    with _environment(contender) as environment:
        _run(contender.before, environment)
        try:
            _start(contender, environment)
        finally:
            _run(contender.after, environment)
    return time_to_ready(series(str(contender.folder))[-1])


@contextmanager
def _environment(contender: Contender) -> Iterator[Mapping[str, str]]:
    with tempfile.TemporaryDirectory(prefix="phasebus-bench-", ignore_cleanup_errors=True) as own:
        variables = {**os.environ, **contender.variables, "PHASEBUS_STATE_DIR": str(contender.folder.absolute())}
        variables["PHASEBUS_RUNTIME_DIR"] = own  # a fork server of the user's is neither used nor stopped
        for name in engine_names() if contender.cold else ():
            launcher = find_launcher(name)
            if isinstance(launcher, CachesInFolders):
                variables.update(launcher.cache_variables(str(Path(own, "caches"))))
        yield variables


def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    if not arguments:
        return
    ended = subprocess.run(  # noqa: S603  # phasebus itself
        [*_PHASEBUS, *arguments], env=environment, check=False, capture_output=True, text=True, errors="replace"
    )
    if ended.returncode:
        lines = "\n  ".join(ended.stderr.splitlines()[-_LAST_LINES:])
        raise StartsError(f"phasebus {' '.join(arguments)} failed (exit code {ended.returncode}):\n  {lines}")


def _start(contender: Contender, environment: Mapping[str, str]) -> None:
    with tempfile.TemporaryFile() as output:
        process: subprocess.Popen[Any] = subprocess.Popen(  # noqa: S603  # phasebus itself
            [*_PHASEBUS, *contender.arguments], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            ended = process.wait() if contender.arguments[0] == "up" else _end_when_ready(process, contender.folder)
        except KeyboardInterrupt:  # the terminal sent it to the start as well, which ends what it started
            process.wait()
            raise Interrupted(signal.SIGINT) from None
        if ended:
            output.seek(0)
            printed = output.read().decode(errors="replace").splitlines()
            lines = "\n  ".join(printed[-_LAST_LINES:])
            raise StartsError(f"{contender.title} did not become ready (exit code {ended}):\n  {lines}")


def _end_when_ready(process: subprocess.Popen[Any], folder: Path) -> int:
    """Wait until the newest journal is that of a start that is ready, and end the process; return 0, or its exit code."""
    known = set(folder.glob("runs/*.jsonl"))
    while process.poll() is None:
        with suppress(JournalError, ValueError):
            newest = max(set(folder.glob("runs/*.jsonl")) - known)
            if summarize(newest).outcome == "finished":
                process.terminate()
                process.wait()
                return 0
        time.sleep(_POLL_SECONDS)
    return process.returncode or 1
