"""The protocol of an engine: how it is checked, started, probed and ended, and how a package adds one.

An engine is found by its name in a configuration. A package adds one with an entry point in the group
``phasebus.engines``: the name is the engine's, the value is a class without arguments that is a `Launcher`::

    [project.entry-points."phasebus.engines"]
    echo = "echo_engine:EchoLauncher"

What a launcher may offer beside that is in `phasebus.initializer.engines.optional`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from phasebus.bus import Bus, PhasebusError, StepFailed, StepFinished, StepKind, StepStarted
from phasebus.telemetry import Telemetry

ForkServerUse = Literal["existing", "owned", "keep"]
"""Which fork server is used: one that is there, else one that ends with its starter, or one that stays."""


class EngineError(PhasebusError):
    """Raised when an engine is not installed, cannot start, or has died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How an engine serves requests over HTTP.

    Attributes:
        host: The address that its server listens on.
        port: The port; 0 for a free one.
        exact: Whether a port in use is an error. If not, the next free port is used.
        name: The name of the model in requests; None for the engine's default.
        args: The server's own arguments, by name.
        drain_seconds: The longest time that running requests get to finish when the engine is closed, in seconds.
    """

    host: str
    port: int
    exact: bool = True
    name: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    drain_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that an engine is started with.

    Attributes:
        bus: The bus that its steps are published on.
        telemetry: The receiver of its own spans.
        step: The id of the step below which its steps belong.
        model: The model's path, or its name where the engine finds it by itself.
        local: Whether the model is on this machine, or will be.
        args: The engine's own arguments, by name.
        env: Environment variables of its processes.
        runtime_env: Ray's runtime_env.
        placement_group: The placement group it runs in; None leaves the placement to Ray.
        bundle: The index of the group's bundle that its first process runs in.
        preload: Whether its processes are forked from one that has imported the engine.
        iteration_sampling: One iteration in so many gets a span while it serves; 0 for none.
        timeout: The longest that it may take to start, in seconds.
        log: The file that the output of its processes is appended to.
        serve: How it serves requests over HTTP; None if it does not. An engine without a server ignores it.
        forkserver: With `preload`: "owned" for a process that ends with the engine, "keep" for one that stays.
    """

    bus: Bus
    telemetry: Telemetry
    step: str
    model: str
    local: bool
    args: Mapping[str, Any]
    env: Mapping[str, str]
    runtime_env: Mapping[str, Any]
    placement_group: Any
    bundle: int
    preload: bool
    iteration_sampling: int
    timeout: float
    log: Path
    serve: Serving | None = None
    forkserver: ForkServerUse = "owned"


class Prepared(Protocol):
    """The part of an engine that was started before its model was there."""

    async def close(self) -> None:
        """End it: it will not be used."""


class Engine(Protocol):
    """An engine that answers."""

    async def generate(self, prompt: str, **sampling: Any) -> str:
        """Return the model's continuation of `prompt`; `sampling` are the engine's own sampling parameters."""

    async def probe(self) -> None:
        """Return if the engine answers; raise the cause of its death if it has died."""

    async def close(self) -> None:
        """End the engine and every process it has started."""


class Launcher(Protocol):
    """A kind of engine."""

    def check(self, args: Mapping[str, Any]) -> None:
        """Raise EngineError if it cannot be started here, or not with these arguments. Nothing has been started yet."""

    def workers(self, args: Mapping[str, Any]) -> int:
        """Return the number of workers of an engine with these arguments.

        By default each worker gets a CPU and, where there are any, a GPU. 0 for an engine that does not run on Ray:
        nothing is reserved, Ray is not started, and `prepare` is not called.
        """

    def span_nodes(
        self, args: Mapping[str, Any], env: Mapping[str, str], bundles: Sequence[int]
    ) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Return the arguments and the environment of an engine whose workers run on several of Ray's nodes.

        Args:
            args: The arguments as configured.
            env: The environment as configured.
            bundles: The indices of the placement group's bundles that belong to this engine.

        Raises:
            EngineError: It cannot span nodes.
        """

    async def prepare(self, launch: Launch) -> Prepared | None:
        """Do what takes time and does not need the model: start processes, import. None if there is nothing to do."""

    async def start(self, launch: Launch, prepared: Prepared | None) -> Engine:
        """Return the engine once it answers; if it fails to start, leave nothing of it behind.

        Args:
            launch: Everything it is started with.
            prepared: The result of an earlier `prepare`, which is either used or closed.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStepStarted(StepStarted):
    """Published when a step of the engine's start begins: loading weights, profiling memory, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStepFinished(StepFinished):
    """Published when a step of the engine's start has finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStepFailed(StepFailed):
    """Published when a step of the engine's start has failed, or its process has died."""


ENGINE_INIT = StepKind("engine")


ENGINE_STEP = StepKind("engine_step", started=EngineStepStarted, finished=EngineStepFinished, failed=EngineStepFailed)


def describe_exit(code: int) -> str:
    """Return how a process ended, by its exit code in `subprocess` and `multiprocessing`: negative for a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = ", as the kernel does when memory runs out" if code == -signal.SIGKILL else ""
    return f"was ended by {name}{why}"
