"""The command `phasebus`: its subcommands by name, and their common handling of errors and output."""

from __future__ import annotations

import difflib
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from phasebus import __version__
from phasebus.initializer.cli.lazy_group import LazyGroup
from phasebus.initializer.cli.output import OutputError, check_output, end_process, tolerant_streams, write_err

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("up:up", "Start the node, or the nodes, that a YAML file describes."),
    "check": ("check:check", "Check a configuration without starting it."),
    "schema": ("schema:schema", "Print the JSON schema of configuration files."),
    "run": ("run:run", "Run a vLLM command unchanged, and trace its start."),
    "watch": ("watch:watch", "Show a running start, on this machine or another."),
    "report": ("report:report", "Show where the time of a start went."),
    "advise": ("advise:advise", "Name what would shorten the next start, and by how much."),
    "bench": ("bench:bench", "Start configurations several times, and compare them."),
    "compare": ("compare:compare", "Compare two series of runs, and name the step that got slower."),
    "runs": ("runs:runs", "List, show and prune the runs that are kept."),
    "doctor": ("doctor:doctor", "Check the environment for problems."),
    "events": ("events:events", "List every event, phase and key."),
    "engines": ("engines:engines", "List the installed engines."),
    "forkserver": ("forkserver:forkserver", "Start, show or stop the fork server that stays."),
    "demo": ("demo:demo", "Start a local Ray and a real vLLM with a tiny model."),
}
"""The module and function of each command in this package, and its line in the help."""

_STARTING = ("up", "run", "demo")
"""The commands that start something; an error of their output must not fail them."""


class _CommandLine(LazyGroup):
    """The commands of `phasebus`."""

    table = _COMMANDS

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or fail with the nearest name."""
        if args[0] not in _COMMANDS:
            close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(_COMMANDS)}."
            ctx.fail(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Parse the arguments."""
        with _interruptible():
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. It fails if its output is its result and cannot be written."""
        with _interruptible():
            result: Any = None
            ended: BaseException | None = None
            try:
                result = super().invoke(ctx)
            except (SystemExit, click.exceptions.Exit) as exit_:  # with the exit code of its result
                ended = exit_
            if ctx.invoked_subcommand not in _STARTING:
                try:
                    check_output()
                except OutputError as error:
                    write_err(f"phasebus: {error}")
                    raise SystemExit(1) from None
            if ended is not None:
                raise ended
            return result

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run the command line. Without `args`, as the main program, end the process when the command has ended."""
        with tolerant_streams():
            if args is not None:
                return super().main(args, *rest, **extra)
            code: object = 0
            try:
                super().main(args, *rest, **extra)
            except SystemExit as ended:
                code = ended.code
            except BaseException:  # noqa: BLE001  # a defect: commands handle their errors
                traceback.print_exc()
                code = 1
            return end_process(code)


@contextmanager
def _interruptible() -> Iterator[None]:
    """End a command without a traceback if it is interrupted outside a start, such as during imports."""
    try:
        yield
    except KeyboardInterrupt:
        write_err("phasebus: ended by SIGINT")
        raise SystemExit(128 + signal.SIGINT) from None


@click.group(cls=_CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="phasebus")
def main() -> None:
    """See, steer and trace the start-up of an LLM cluster."""
