"""Any vLLM command, watched: its phases are those of a node, without Ray and without a line of code."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Process

from phasebus.bus import Bus, Context
from phasebus.initializer.downloads import fetch
from phasebus.initializer.engines import EngineError
from phasebus.initializer.engines.protocol import ENGINE_INIT, describe_exit
from phasebus.initializer.engines.vllm.environment import environment_of_command
from phasebus.initializer.engines.vllm.inside.processes import START_PROCESS, process_start_step_id
from phasebus.initializer.engines.vllm.step_tracker import StepTracker
from phasebus.initializer.engines.vllm.steps import relayed_steps
from phasebus.initializer.node.events import (
    NODE,
    PostDownload,
    PostEngineInit,
    PostInitialization,
    PreDownload,
    PreEngineInit,
    PreInitialization,
)
from phasebus.initializer.node.keys import DOWNLOAD_RESULT, MODEL, NODE_KEYS
from phasebus.initializer.pipeline.phases import Phase, run_phases
from phasebus.telemetry import StepNotice, Telemetry
from phasebus.telemetry.redaction import redact_arguments

_LOOK_SECONDS = 0.05
_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that starts an engine, and what is fetched for it.

    Attributes:
        arguments: The command and its arguments.
        download: The model that is fetched while the command imports; None for nothing.
        destination: The folder it goes to; None for the default of its kind of source.
    """

    arguments: Sequence[str]
    download: str | None = None
    destination: Path | None = None

    @property
    def name(self) -> str:
        """The command as it is typed, without its secrets."""
        return shlex.join(redact_arguments(self.arguments))


class CommandStart:
    """One start of a command, until its engine answers.

    Args:
        command: What is started.
        bus: Where its phases are published.
        telemetry: Where its own spans go.

    Attributes:
        process: Its process, once that is known.
        is_starting: Whether its process is being started just now, and may be there already.
        signals: The numbers of signals that came for it meanwhile; it gets them then.
    """

    def __init__(self, command: Command, bus: Bus, telemetry: Telemetry) -> None:
        self._command = command
        self._bus = bus
        self._telemetry = telemetry
        self.process: Process | None = None
        self.is_starting = False
        self.signals: list[int] = []

    async def run(self) -> Process:
        """Start the command; return its process once its engine answers.

        Raises:
            EngineError: There is no such command, or it ended before its engine answered.
            DownloadError: The model cannot be had.
        """
        identity = self._telemetry.identity
        context = Context({MODEL: self._command.download or ""}, keys=NODE_KEYS)
        attributes = {"run": identity.run, "node": identity.node, "engine": "vllm", "command": self._command.name}
        async with self._bus.step(NODE, identity.node, attributes={"model": context[MODEL], **attributes}):
            await run_phases(self._bus, self._phases(), context, self._command, keys=NODE_KEYS)
        assert self.process is not None  # noqa: S101  # the engine's phase has made it
        return self.process

    def _phases(self) -> tuple[Phase, ...]:
        return (
            Phase(name="pre_initialization", before=PreInitialization),
            Phase(
                name="download",
                before=PreDownload,
                work=self._download,
                after=PostDownload,
                applies=lambda _: self._command.download is not None,
                beside=lambda _: True,
            ),
            Phase(name="engine_init", before=PreEngineInit, work=self._start_engine, after=PostEngineInit, joins=False),
            Phase(name="post_initialization", before=PostInitialization),
        )

    async def _download(self, context: Context) -> None:
        self._telemetry.relay.close_gate()
        context[DOWNLOAD_RESULT] = await fetch(self._bus, context[MODEL], destination=self._command.destination)
        self._telemetry.relay.open_gate()

    async def _start_engine(self, context: Context) -> None:
        telemetry = self._telemetry
        async with self._bus.step(ENGINE_INIT, "vllm", attributes={"model": context[MODEL]}) as step:
            environment = environment_of_command(telemetry, step.id, gate=self._command.download is not None)
            async with relayed_steps(self._bus, telemetry.relay) as steps:
                began_ns = time.time_ns()
                self.is_starting = True
                self.process = process = await _started(self._command, environment)
                for number in self.signals:
                    process.send_signal(signal.Signals(number))
                telemetry.relay.tell(_birth(process.pid, began_ns, telemetry.identity.trace, step.id))
                try:
                    await self._until_ready(process, steps)
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await _end(process)
                    raise

    async def _until_ready(self, process: Process, steps: StepTracker) -> None:
        """Wait for the engine to answer.

        Raises:
            EngineError: The process ended before that.
        """
        while not steps.ready:
            with anyio.move_on_after(_LOOK_SECONDS):
                code = await process.wait()
                step = f", in the step {where}" if (where := steps.innermost()) else ""
                raise EngineError(f"`{self._command.name}` {describe_exit(code)} before its engine answered{step}")


async def _started(command: Command, environment: Mapping[str, str]) -> Process:
    program, *rest = command.arguments
    beside_python = str(Path(sys.executable).parent)  # where `vllm` is, if the environment is not activated
    found = shutil.which(program) or shutil.which(program, path=beside_python)
    if found is None:
        raise EngineError(f"there is no command {program!r} on the PATH or in {beside_python}; is it installed?")
    return await anyio.open_process(
        [found, *rest], stdin=None, stdout=None, stderr=None, env={**os.environ, **environment}
    )


def _birth(pid: int, began_ns: int, trace: str, parent: str) -> StepNotice:
    """Return what tells that the command's process has been started; its own plugin tells when it has come up."""
    return StepNotice(
        event="started",
        step=process_start_step_id(pid, trace),
        parent=parent,
        name=START_PROCESS,
        time_ns=began_ns,
        pid=pid,
        process="front_end",
        attributes={"process": "front_end", "pid": pid},
    )


async def _end(process: Process) -> None:
    """End a process in order if it can be done within seconds, and in any case."""
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(_END_SECONDS):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
