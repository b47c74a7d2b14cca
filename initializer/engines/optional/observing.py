"""What a launcher may offer if its engine can be observed where another program starts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from phasebus.bus import Bus
from phasebus.telemetry import Relay, StepNotice, Telemetry


class ObservedSteps(Protocol):
    """The steps of one start, as the engine's processes report them."""

    @property
    def model(self) -> str | None:
        """The name that the engine serves its model under; None until the engine has reported it."""

    @property
    def ready(self) -> bool:
        """Whether the engine has reported that it answers."""

    @property
    def running(self) -> Sequence[object]:
        """The steps that have not ended."""

    def innermost(self) -> str | None:
        """Return the step that began last and has not ended, for messages; None if nothing runs."""


class EngineObserver(Protocol):
    """Observes an engine that a library starts in this process, as Ray Serve does."""

    @property
    def name(self) -> str:
        """The engine's name in steps."""

    @property
    def outermost_step(self) -> str:
        """The name of the reported step that contains the engine's whole start."""

    def environment(
        self, telemetry: Telemetry, environment: Mapping[str, str], args: Mapping[str, Any]
    ) -> Mapping[str, str]:
        """Return the variables that make the engine's processes report their steps.

        Args:
            telemetry: Where they report to.
            environment: What they are started with otherwise.
            args: The engine's own arguments.
        """

    def relayed_steps(self, bus: Bus, relay: Relay) -> AbstractAsyncContextManager[ObservedSteps]:
        """Publish the reports that arrive at `relay` as engine steps on `bus`; all steps end with the context."""


@runtime_checkable
class PreloadsEngine(Protocol):
    """What an engine's observer also has if the imports of its processes can begin before the engine is started."""

    def preload(self, environment: Mapping[str, str]) -> None:
        """Begin to import, beside this process, what the engine's processes need. It returns at once.

        A replica calls it at its first line, and again once it has imported the engine itself.

        Args:
            environment: The environment of this process.
        """


class CommandObserver(Protocol):
    """Observes an engine that a command starts under ``phasebus run``."""

    @property
    def name(self) -> str:
        """The engine's name in steps."""

    @property
    def model(self) -> str:
        """The name of the model according to the command line; "" if it does not have one."""

    def environment(
        self, telemetry: Telemetry, step: str, environment: Mapping[str, str], *, gate: bool
    ) -> Mapping[str, str]:
        """Return the variables that make the command's processes report their steps.

        Args:
            telemetry: Where they report to.
            step: The id of the step that theirs are part of.
            environment: What the command is started with otherwise.
            gate: Whether the engine waits for its model (`Relay.gate_url`) once it has imported everything.
        """

    def process_started(self, pid: int, began_ns: int, trace: str, parent: str) -> StepNotice | None:
        """Return the notice that the command's process has started; None if that is no step of this engine.

        Args:
            pid: The id of the process.
            began_ns: When it was started, in nanoseconds since the epoch.
            trace: The trace id.
            parent: The id of the step it is part of.
        """

    def relayed_steps(self, bus: Bus, relay: Relay) -> AbstractAsyncContextManager[ObservedSteps]:
        """Publish the reports that arrive at `relay` as engine steps on `bus`; all steps end with the context."""

    async def is_healthy(self) -> bool:
        """Return whether the engine answers when it is probed; False if it cannot be probed."""


@runtime_checkable
class EndsAfterDeaths(Protocol):
    """What a command observer also has if it knows that the command ends after the death of a process of its engine."""

    def process_ending_after(self, exited: StepNotice, environment: Mapping[str, str]) -> int | None:
        """Return the id of the process that will end because another one has died; None if none will, or it is not known.

        Args:
            exited: The report of the death.
            environment: The environment of the command.
        """


@runtime_checkable
class NamesWeights(Protocol):
    """What a command observer also has if it knows the files that the engine will load."""

    def weight_files(self, environment: Mapping[str, str]) -> Sequence[Path]:
        """Return the files of the model's weights, in the order in which they are loaded; none if they are not known.

        Args:
            environment: The environment of the command.
        """


@runtime_checkable
class ObservableLauncher(Protocol):
    """What a launcher also has if its engine can be observed where a library starts it."""

    def observer(self) -> EngineObserver:
        """Return an observer of one start."""


@runtime_checkable
class CommandLauncher(Protocol):
    """What a launcher also has if its engine can be observed where a command starts it."""

    def recognizes(self, arguments: Sequence[str]) -> bool:
        """Return whether a command, with its arguments, starts this engine. It reads no file and starts nothing."""

    def command_observer(self, arguments: Sequence[str]) -> CommandObserver:
        """Return an observer of a command, whatever its arguments are."""
