"""`phasebus run`: run any vLLM command unchanged, and observe its start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from phasebus.allocator import use_one_arena
from phasebus.initializer.cli.options import service_options
from phasebus.initializer.cli.output import log_warnings, write_err
from phasebus.telemetry.switches import is_off

if TYPE_CHECKING:
    from phasebus.initializer.engines.optional import CommandObserver
    from phasebus.initializer.engines.protocol import ForkServerUse
    from phasebus.initializer.node.child import ChildProcess
    from phasebus.initializer.node.command import Command
    from phasebus.initializer.node.restart import RestartPolicy
    from phasebus.telemetry import Telemetry


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--download", metavar="SOURCE", help="Model to download while the command imports: hf://org/name, s3://…")
@click.option("--destination", type=click.Path(path_type=Path), help="Folder the model is downloaded into.")
@service_options
@click.option(
    "--forkserver",
    type=click.Choice(["on", "keep", "off"]),
    help="on (the default): fork vLLM's processes from one that has imported vLLM; keep: and keep it for later starts; off.",
)
@click.option("--no-forkserver", is_flag=True, help="The same as --forkserver off: let vLLM spawn its processes.")
@click.option(
    "--restart",
    metavar="WHEN",
    default="no",
    callback=lambda _context, _option, value: _policy(value),
    help="on-failure or on-failure:N: start the command again if it fails or its engine dies, at most N times in a row.",
)
@click.option("--verbose", "-v", is_flag=True, help="Log the steps of the start on standard error.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    command: tuple[str, ...],
    *,
    download: str | None,
    destination: Path | None,
    host: str | None,
    port: int | None,
    linger: float | None,
    forkserver: str | None,
    no_forkserver: bool,
    restart: RestartPolicy | None,
    verbose: bool,
) -> None:
    """Run COMMAND, a vLLM command such as `vllm serve MODEL`, and trace its start.

    Output, signals, and exit code are the command's own; 127 means that there is no such command, 126 that it cannot be
    executed. /metrics, /readyz and the page are served on the port while it loads. If phasebus lacks something for that,
    such as a free port or a writable folder, it prints one warning, and the command runs without it. If the command fails
    before its engine answers, the metrics stay up for --linger seconds before phasebus ends like it.
    """
    use_one_arena()  # before threads begin
    from phasebus.initializer.node.child import ChildProcess
    from phasebus.initializer.node.execution import CommandNotStartedError, executable, original_mask
    from phasebus.initializer.node.termination_message import write_termination_message

    original_mask()
    log_warnings()
    try:
        executable(command[0])
        try:
            child = ChildProcess()
        except RuntimeError as error:
            _run_unobserved(command, error)
        use = _use("off" if no_forkserver else forkserver, restarts=restart is not None)
        _run(child, command, download, destination, host, port, linger, restart, use, verbose=verbose)
        child.wait()
    except CommandNotStartedError as error:
        write_err(f"phasebus: {error}")
        write_termination_message(str(error))
        raise SystemExit(error.exit_code) from None
    child.exit_like_it()


def _run(
    child: ChildProcess,
    command: tuple[str, ...],
    download: str | None,
    destination: Path | None,
    host: str | None,
    port: int | None,
    linger: float | None,
    restart: RestartPolicy | None,
    forkserver: ForkServerUse | None,
    *,
    verbose: bool,
) -> None:
    """Run `command`, and observe it if possible."""
    from phasebus.initializer.node.execution import CommandNotStartedError

    try:
        import anyio

        from phasebus.initializer.engines.registry import find_command_observer
        from phasebus.initializer.node.command import Command
        from phasebus.initializer.pipeline.wiring import HOST, PORT, available_telemetry

        observer = find_command_observer(command)
        telemetry = available_telemetry(host=host or HOST, port=PORT if port is None else port, warn=_warn)
        started = Command(arguments=command, download=download, destination=destination, forkserver=forkserver)
    except Exception as error:  # noqa: BLE001  # the command does not depend on phasebus
        _run_unobserved(command, error)
    try:
        succeeded = anyio.run(_observe, started, observer, child, telemetry, linger, restart, verbose)
    except CommandNotStartedError:
        raise
    except Exception as error:  # noqa: BLE001  # an error in the observation
        if child.pid is None:
            _run_unobserved(command, error)
        _warn(f"the command is no longer observed: {type(error).__name__}: {error}")
    else:
        if not succeeded:
            raise SystemExit(1)


async def _observe(
    command: Command,
    observer: CommandObserver,
    child: ChildProcess,
    telemetry: Telemetry,
    configured_linger: float | None,
    restart: RestartPolicy | None,
    verbose: bool,
) -> bool:
    """Run `command` to its end, and observe its start; return False if its end does not show that it has failed.

    Its model could not be downloaded, or its engine died although it ended without an error.
    """
    import sys

    import anyio

    from phasebus.bus import Bus
    from phasebus.initializer.cli.failures import FailureReport
    from phasebus.initializer.cli.linger import linger, linger_seconds
    from phasebus.initializer.downloads import DownloadError
    from phasebus.initializer.engines.protocol import EngineError
    from phasebus.initializer.node.command import CommandStart
    from phasebus.initializer.node.restart import GaveUpError, keep_running
    from phasebus.initializer.pipeline.wiring import observe_all

    downloaded = True
    async with telemetry, Bus("run", timing=True) as bus:
        journal = observe_all(bus, telemetry)
        child.on_stop = telemetry.mark_as_stopping
        if verbose:
            from phasebus.initializer.cli.terminal import log_to_stderr

            log_to_stderr(bus, telemetry.timeline)
        if (verbose or sys.stderr.isatty()) and telemetry.service is not None:
            write_err(f"phasebus: metrics at {telemetry.service.url}/metrics, journal {journal}")
        try:
            start = CommandStart(command, observer, child, bus, telemetry)
            await (start.run() if restart is None else keep_running(start, restart, _warn))
        except GaveUpError as error:
            _warn(str(error))
            return bool(child.returncode)
        except (EngineError, DownloadError) as error:
            downloaded = not isinstance(error, DownloadError)
            if downloaded and child.pid is None:
                raise
            if child.returncode != 0 or not downloaded:
                FailureReport(starts=True).write(error)
            telemetry.push_metrics()
            if (child.returncode or not downloaded) and not child.stopped and telemetry.service is not None:
                # a signal ends it, because it ends a process whose command has ended
                await linger(linger_seconds(configured_linger, telemetry.service.host), anyio.sleep)
        if downloaded:  # otherwise it was ended, or not started
            await child.wait_async()
    return downloaded


def _policy(text: str) -> RestartPolicy | None:
    if text == "no":
        return None
    from phasebus.initializer.node.restart import read_policy

    try:
        return read_policy(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _use(option: str | None, *, restarts: bool) -> ForkServerUse | None:
    """Return which fork server is used; a command that may be started again has one from the beginning."""
    chosen = option or os.environ.get("PHASEBUS_FORKSERVER", "").strip()
    if chosen == "off" or is_off(chosen):
        return None
    return "keep" if chosen == "keep" else "owned" if restarts else "existing"


def _run_unobserved(command: tuple[str, ...], error: Exception) -> NoReturn:
    from phasebus.initializer.node.execution import replace_this_process

    _warn(f"the command runs unobserved: {type(error).__name__}: {error}")
    replace_this_process(command)


def _warn(message: str) -> None:
    write_err(f"phasebus: {message}")
