"""What phasebus asks of an engine."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from phasebus.bus import Bus, PhasebusError, StepFailed, StepFinished, StepKind, StepStarted
from phasebus.telemetry import Telemetry


class EngineError(PhasebusError):
    """Raised when an engine is not installed, cannot start, or has died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """All that an engine is started with.

    Attributes:
        bus: Where its steps are published.
        telemetry: Where its own spans go.
        step: The id of the step below which its steps belong.
        model: The model's path, or its name where the engine is to find it by itself.
        local: Whether the model is on this machine, or will be.
        args: The engine's own arguments, by their names.
        env: Environment variables of its processes.
        runtime_env: Ray's runtime_env.
        placement_group: Where it runs; None leaves that to Ray.
        bundle: In which bundle of the group its first process runs.
        preload: Whether its processes are forked from one that has imported it.
        iteration_sampling: Of how many iterations, while it serves, one gets a span; 0 for none.
        timeout: How long it may take, in seconds.
        log: The file its processes' output goes to.
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


class Prepared(Protocol):
    """What an engine has begun with before its model was there."""

    async def close(self) -> None:
        """Give it up: it is not going to be used."""


class Engine(Protocol):
    """An engine that answers."""

    async def generate(self, prompt: str, **sampling: Any) -> str:
        """Return what the model makes of `prompt`; `sampling` are the engine's own sampling parameters."""

    async def probe(self) -> None:
        """Raise whatever there is to say if the engine has died."""

    async def close(self) -> None:
        """End the engine and every process it has started."""


class Launcher(Protocol):
    """A kind of engine."""

    def check(self, args: Mapping[str, Any]) -> None:
        """Raise EngineError if it cannot be started here, or not with these arguments, before anything else is begun."""

    async def prepare(self, launch: Launch) -> Prepared | None:
        """Do what takes time and does not take the model: start processes, import. None if there is nothing to do."""

    async def start(self, launch: Launch, prepared: Prepared | None) -> Engine:
        """Return the engine once it answers; if it does not come to that, leave nothing of it behind.

        Args:
            launch: What it is started with.
            prepared: What an earlier `prepare` came to. It is used, or given up if what it was made for has changed.
        """


def workers_of(args: Mapping[str, Any]) -> int:
    """Return how many workers an engine of these arguments has: tensor times pipeline parallel."""
    return int(args.get("tensor_parallel_size", 1)) * int(args.get("pipeline_parallel_size", 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStepStarted(StepStarted):
    """Published when the engine begins a step of its start: loading weights, profiling memory, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStepFinished(StepFinished):
    """Published when the engine has ended a step of its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStepFailed(StepFailed):
    """Published when the engine failed in a step of its start, or its process died."""


ENGINE_INIT = StepKind("engine")


ENGINE_STEP = StepKind("engine_step", started=EngineStepStarted, finished=EngineStepFinished, failed=EngineStepFailed)


def describe_exit(code: int) -> str:
    """Return it from a return code as `subprocess` and `multiprocessing` have them: negative for a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = ", as the kernel does when memory runs out" if code == -signal.SIGKILL else ""
    return f"was ended by {name}{why}"
