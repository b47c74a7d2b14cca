"""Any command that starts an engine, observed: its phases are those of a node, without Ray and without a line of code."""

from __future__ import annotations

import logging
import shlex
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from phasebus.allocator import return_free_memory
from phasebus.bus import Bus, Context
from phasebus.initializer.downloads import fetch
from phasebus.initializer.engines.optional import (
    NO_FORKSERVER,
    CommandObserver,
    NamesWeights,
    announced_steps,
)
from phasebus.initializer.engines.protocol import ENGINE_INIT, ForkServerUse, describe_exit
from phasebus.initializer.node.child import ChildProcess
from phasebus.initializer.node.command_process import start_process
from phasebus.initializer.node.deaths import EngineDeaths
from phasebus.initializer.node.events import (
    ENGINE_RESTART,
    NODE,
    PostDownload,
    PostEngineInit,
    PostInitialization,
    PreDownload,
    PreEngineInit,
    PreInitialization,
)
from phasebus.initializer.node.execution import original_environment, printable
from phasebus.initializer.node.factors import described_configuration, engine_factors
from phasebus.initializer.node.keys import DOWNLOAD_RESULT, MODEL, NODE_KEYS
from phasebus.initializer.node.leftovers import Leftovers
from phasebus.initializer.node.read_ahead import reading_ahead
from phasebus.initializer.node.readiness import wait_until_ready
from phasebus.initializer.pipeline.phases import Phase, phase_names, run_phases
from phasebus.telemetry import Telemetry
from phasebus.telemetry.redaction import redact_arguments
from phasebus.telemetry.span_names import LINKED_TO

logger = logging.getLogger("phasebus.node")

_TERMINATION_SECONDS = 10.0
_ERRORS_SECONDS = 0.5
"""How long a command whose engine has died has for the answers to its requests, before it is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that starts an engine, and the model that is downloaded for it.

    Attributes:
        arguments: The command and its arguments.
        download: The model that is downloaded while the command imports; None for nothing.
        destination: The folder it is downloaded into; None for the default of its kind of source.
        forkserver: Which server the whole command is forked from; None: its engine forks no process at all.
    """

    arguments: Sequence[str]
    download: str | None = None
    destination: Path | None = None
    forkserver: ForkServerUse | None = "existing"

    @property
    def name(self) -> str:
        """The command line without its secrets, quoted as for a shell."""
        return printable(shlex.join(redact_arguments(self.arguments)))


class CommandStart:
    """One start of a command, until its engine answers.

    Args:
        command: The command.
        observer: Observes its engine.
        child: Runs it.
        bus: Where its phases are published.
        telemetry: Where its own spans go.

    Attributes:
        deaths: The processes of its engine that have died.
        leftovers: Those that outlive it.
    """

    def __init__(
        self,
        command: Command,
        observer: CommandObserver,
        child: ChildProcess,
        bus: Bus,
        telemetry: Telemetry,
    ) -> None:
        self._command = command
        self._observer = observer
        self._child = child
        self._bus = bus
        self._telemetry = telemetry
        self._download_failed = False
        self._engine_step: str | None = None
        self.deaths = EngineDeaths(telemetry.relay, observer, original_environment())
        self.leftovers = Leftovers(telemetry.relay)
        self._model = printable(observer.model) or command.download or ""

    async def run(self) -> None:
        """Start the command; return once its engine answers.

        An error of the download ends the command, which would wait for the model. Any other leaves it running.

        Raises:
            CommandNotStartedError: The command cannot be executed.
            EngineError: It ended before its engine answered.
            DownloadError: The model cannot be downloaded.
        """
        identity = self._telemetry.identity
        context = Context({MODEL: self._command.download or ""}, keys=NODE_KEYS)
        phases = self._phases()
        attributes = {
            "model": self._model,
            "run": identity.run,
            "node": identity.node,
            "engine": self._observer.name,
            "command": self._command.name,
            "phases": phase_names(phases),
            **described_configuration(self._factors),
        }
        try:
            async with self._bus.step(NODE, identity.node, attributes=attributes) as step:
                await run_phases(self._bus, phases, context, self._command, keys=NODE_KEYS)
                step.attributes["model"] = self._model
        except Exception:
            if self._download_failed:
                await self._terminate()
            raise
        return_free_memory()

    async def run_again(self, cause: str, attempt: int, pause: Callable[[], Awaitable[object]]) -> None:
        """Start the command again after it has failed; return once its engine answers. Meanwhile it is not ready.

        Args:
            cause: Why it has failed.
            attempt: The number of the restart in a row.
            pause: Waits until it may be started; part of the restart.

        Raises:
            CommandNotStartedError: The command cannot be executed.
            EngineError: It ended before its engine answered.
        """
        status, ready = self._telemetry.status, self._telemetry.metrics.ready
        status.settle(cause)
        ready.set(0)
        attributes: dict[str, str | int] = {"model": self._model, "cause": cause, "attempt": attempt}
        if self._engine_step is not None:  # what it replaces
            attributes[LINKED_TO] = self._telemetry.identity.traceparent(self._engine_step)
        async with self._bus.step(ENGINE_RESTART, self._observer.name, attributes=attributes):
            await pause()
            self.deaths.clear()
            await self._start_engine(Context({}, keys=NODE_KEYS))
        status.settle(None)
        ready.set(1)

    async def wait_for_failure(self, *, at_once: bool = False) -> str | None:
        """Wait for the command's end; return why it has failed, or None: it ended in order, or a signal asked it to.

        Args:
            at_once: Whether the command is ended when its engine has died. By itself, it ends some seconds later.
        """
        ended_here = at_once and await self._end_with_engine()
        await self._child.wait_async()
        if self._child.stopped:
            return None
        if self.deaths.first is not None:
            return f"the engine has died: {self.deaths.first}{', so its command was ended' if ended_here else ''}"
        return f"`{self._command.name}` {describe_exit(self._child.returncode)}" if self._child.returncode else None

    async def _end_with_engine(self) -> bool:
        """Wait for the end of the command, and end it once its engine has died; return whether it was ended here."""
        ended_here = False

        async def end_after_death() -> None:
            nonlocal ended_here
            assert self._child.pid is not None  # noqa: S101  # it has been started
            await self.deaths.wait_until_doomed(self._child.pid)
            await anyio.sleep(_ERRORS_SECONDS)
            if self._child.stopped:  # its engine has ended because it ends: another signal would interrupt that
                return
            ended_here = self._child.returncode is None
            await self._terminate()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end_after_death)
            await self._child.wait_async()
            tasks.cancel_scope.cancel()
        return ended_here

    def _factors(self) -> Mapping[str, Any]:
        """Return the factors of the command's configuration."""
        return {
            "model": self._model,
            "engine": self._observer.name,
            "download": self._command.download,
            "forkserver": self._command.forkserver,
            **engine_factors(self._observer, {}, original_environment()),
        }

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
        try:
            context[DOWNLOAD_RESULT] = await fetch(self._bus, context[MODEL], destination=self._command.destination)
        except Exception:
            self._download_failed = True
            raise
        except (
            BaseException
        ):  # cancelled: the command is left running, and must not wait for a model that never arrives
            self._telemetry.relay.open_gate()
            raise
        self._telemetry.relay.open_gate()

    async def _start_engine(self, context: Context) -> None:
        telemetry = self._telemetry
        attributes = {"model": self._model, **announced_steps(self._observer)}
        async with self._bus.step(ENGINE_INIT, self._observer.name, attributes=attributes) as step:
            self._engine_step = step.id
            async with self._observer.relayed_steps(self._bus, telemetry.relay) as steps:
                began_ns = time.time_ns()
                environment = self._environment(step.id)
                with reading_ahead(self._weights(environment)):
                    await start_process(
                        self._child,
                        self._command.arguments,
                        environment,
                        observer=self._observer,
                        use=self._command.forkserver,
                        bus=self._bus,
                    )
                    pid = self._child.pid
                    assert pid is not None  # noqa: S101  # it has been started
                    started = self._observer.process_started(pid, began_ns, telemetry.identity.trace, step.id)
                    if started is not None:
                        telemetry.relay.publish(started)
                    await wait_until_ready(steps, self._observer, self._child, telemetry.relay, self._command.name)
            self._model = step.attributes["model"] = steps.model or self._model

    def _weights(self, environment: Mapping[str, str]) -> Sequence[Path]:
        """Return the files of weights that are read while the command imports; none if they are being downloaded."""
        if self._command.download is not None or not isinstance(self._observer, NamesWeights):
            return ()
        try:
            return self._observer.weight_files(environment)
        except Exception as error:  # noqa: BLE001  # the command loads them by itself
            logger.warning("the weights are not read ahead: %s: %s", type(error).__name__, error)
            return ()

    def _environment(self, step: str) -> Mapping[str, str]:
        """Return the command's environment, in which its steps are reported below the step with the id `step`."""
        given = {**original_environment(), **(NO_FORKSERVER if self._command.forkserver is None else {})}
        gate = self._command.download is not None
        return {**given, **self._observer.environment(self._telemetry, step, given, gate=gate)}

    async def _terminate(self) -> None:
        """End the command: in order within seconds, or else by SIGKILL."""
        if self._child.pid is None:
            return
        with anyio.CancelScope(shield=True):
            self._child.send_signal(signal.SIGTERM)
            if not await self._child.wait_async(_TERMINATION_SECONDS):
                self._child.send_signal(signal.SIGKILL)
                await self._child.wait_async()
