"""Observing a vLLM that another program starts: Ray Serve, or a command."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from phasebus.bus import AttributeValue, Bus
from phasebus.initializer.engines.optional import ForkedCommand
from phasebus.initializer.engines.protocol import ForkServerUse
from phasebus.initializer.engines.vllm.command_line import ServerCommand, plugin_environment, read_command
from phasebus.initializer.engines.vllm.environment import environment_of_command, environment_of_engine
from phasebus.initializer.engines.vllm.factors import engine_factors
from phasebus.initializer.engines.vllm.import_steps import publish_imports
from phasebus.initializer.engines.vllm.inside.processes import (
    PARENT_PID,
    START_PROCESS,
    process_start_step_id,
)
from phasebus.initializer.engines.vllm.inside.variables import FORKSERVER
from phasebus.initializer.engines.vllm.names import ALL_STEPS
from phasebus.initializer.engines.vllm.step_tracker import StepTracker
from phasebus.initializer.engines.vllm.steps import relayed_steps
from phasebus.initializer.engines.vllm.weights import weight_files
from phasebus.telemetry import Relay, StepNotice, Telemetry
from phasebus.telemetry.history import Factor
from phasebus.telemetry.redaction import redact_arguments
from phasebus.telemetry.switches import is_off

logger = logging.getLogger("phasebus.engine")

_NAME: Final = "vllm"
_OUTLIVES_ENGINE: Final = "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"
_OUTLIVING_OPTIONS: Final = frozenset({"enable_fault_tolerance", "fault_tolerance_config"})


class VLLMObserver:
    """Observes a vLLM that a library starts in this process (`EngineObserver`)."""

    name = _NAME
    step_names = ALL_STEPS

    outermost_step = "init_front_end"
    """The step that contains the whole start, as the plugin names it."""

    def preload(self, environment: Mapping[str, str]) -> None:
        """Start a fork server beside this process, or use one that stays; if neither is possible, vLLM spawns its processes.

        Nothing happens if this process has one, unless a variable that its imports read has changed since.
        """
        use = environment.get(FORKSERVER)
        if is_off(use):
            return
        from phasebus.initializer.engines.vllm.inside.forkserver import channel
        from phasebus.initializer.engines.vllm.inside.forkserver.begin import release_server, start_server
        from phasebus.initializer.engines.vllm.inside.forkserver.imported import unknown_changes

        if channel.is_available():
            if not unknown_changes(environment):
                return
            release_server()  # vLLM would spawn its processes
        from phasebus.initializer.engines.vllm.branching import fork_server_from_kept

        try:
            if use == "keep":
                fork_server_from_kept()
            else:
                start_server()
        except OSError as error:
            logger.warning("no fork server, so vLLM spawns its processes: %s", error)

    def environment(
        self, telemetry: Telemetry, environment: Mapping[str, str], args: Mapping[str, Any]
    ) -> Mapping[str, str]:
        """Return what makes vLLM's processes report their steps."""
        return environment_of_engine(telemetry, environment, traces_endpoint=args.get("otlp_traces_endpoint"))

    def factors(self, args: Mapping[str, Any], environment: Mapping[str, str]) -> Mapping[str, Factor]:
        """Return the arguments, variables and versions that the duration of a start depends on."""
        return engine_factors(args, environment)

    def relayed_steps(self, bus: Bus, relay: Relay) -> AbstractAsyncContextManager[StepTracker]:
        """Publish the reports that arrive at `relay` as engine steps."""
        return relayed_steps(bus, relay)


class VLLMCommandObserver:
    """Observes a command that starts vLLM, or may start it (`CommandObserver`).

    Args:
        arguments: The command and its arguments.

    Attributes:
        model: The name that its server serves the model under; "" if the arguments do not name one.
    """

    name = _NAME
    step_names = ALL_STEPS

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._server = _server_of(arguments)
        self.model = self._server.model if self._server else ""

    def environment(
        self, telemetry: Telemetry, step: str, environment: Mapping[str, str], *, gate: bool
    ) -> Mapping[str, str]:
        """Return what makes the command load our plugin and report its steps below the step with the id `step`."""
        endpoint = None if self._server is None else self._server.traces_endpoint
        reporting = environment_of_command(telemetry, step, gate=gate, traces_endpoint=endpoint)
        forking = {} if FORKSERVER in environment else {FORKSERVER: "1"}
        return {**reporting, **plugin_environment(environment), **forking}

    def factors(self, args: Mapping[str, Any], environment: Mapping[str, str]) -> Mapping[str, Factor]:
        """Return the options, variables and versions that the duration of the command's start depends on."""
        if self._server is None:
            return {**engine_factors(args, environment), "command": " ".join(redact_arguments(self._arguments))}
        return engine_factors({**self._server.options, **args}, environment)

    def process_started(self, pid: int, began_ns: int, trace: str, parent: str) -> StepNotice:
        """Return the notice that the command's process has started; its own plugin reports the end of that step."""
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

    def relayed_steps(self, bus: Bus, relay: Relay) -> AbstractAsyncContextManager[StepTracker]:
        """Publish the reports that arrive at `relay` as engine steps."""
        return relayed_steps(bus, relay, headless=self._server is not None and self._server.headless)

    def begin_fork_server(
        self, path: str, arguments: Sequence[str], environment: Mapping[str, str], use: ForkServerUse
    ) -> int | None:
        """Start a server that stays, if `use` asks for one; return its process id if it still imports."""
        from phasebus.initializer.engines.vllm.forking import begin_server

        return begin_server(path, arguments, environment, use)

    async def publish_imports(
        self, bus: Bus, *, step: str, since_ns: int, attributes: Mapping[str, AttributeValue]
    ) -> None:
        """Publish the longest imports of the server, if it can be asked, as engine steps."""
        from phasebus.initializer.engines.vllm.forking import server_imports

        imports = await anyio.to_thread.run_sync(server_imports)
        await publish_imports(bus, imports, step=step, since_ns=since_ns, attributes=attributes)

    def fork(
        self,
        path: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        mask: frozenset[int],
        use: ForkServerUse,
    ) -> ForkedCommand | None:
        """Return the command as a fork of a server that stays; None if it has to be executed."""
        from phasebus.initializer.engines.vllm.forking import fork_command

        return fork_command(path, arguments, environment, mask, use)

    def weight_files(self, environment: Mapping[str, str]) -> Sequence[Path]:
        """Return the files of the weights that the server will load, if they are on this machine."""
        return () if self._server is None else weight_files(self._server.weights, environment)

    def process_ending_after(self, exited: StepNotice, environment: Mapping[str, str]) -> int | None:
        """Return the id of the front end after the death of an engine core, unless it is to outlive its engine."""
        options = {} if self._server is None else self._server.options
        if not exited.process.startswith("EngineCore") or not _OUTLIVING_OPTIONS.isdisjoint(options):
            return None
        if environment.get(_OUTLIVES_ENGINE, "0").strip() not in ("", "0"):
            return None
        front_end = exited.attributes.get(PARENT_PID)
        return front_end if isinstance(front_end, int) else None

    async def is_healthy(self) -> bool:
        """Return whether the server's /health answers; False if the arguments do not name its address."""
        return self._server is not None and await self._server.is_healthy()


def _server_of(arguments: Sequence[str]) -> ServerCommand | None:
    """Return the server that the arguments start; None if they start none, or cannot be parsed."""
    try:
        return read_command(list(arguments))
    except Exception:  # noqa: BLE001  # whatever they are, they are the command's own
        return None
