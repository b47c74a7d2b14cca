"""What a launcher may offer beside the protocol: to observe an engine that another program starts, and to describe it.

A launcher that has all methods of `ObservableLauncher`, `CommandLauncher` or `InspectableLauncher` answers for its engine in
Ray Serve LLM, under ``phasebus run`` or in ``phasebus doctor``. No base class is needed, and one without them works.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

from phasebus.bus import Bus
from phasebus.initializer.seams import Seam
from phasebus.telemetry import Relay, StepNotice, Telemetry

if TYPE_CHECKING:
    from phasebus.telemetry.analysis import Lever
    from phasebus.telemetry.journal import Run

NO_FORKSERVER: Final[Mapping[str, str]] = {"PHASEBUS_FORKSERVER": "0"}
"""In the environment of a command, it asks the engine to start its processes as if phasebus had no fork server."""


ForkServerUse = Literal["existing", "owned", "keep"]
"""Which fork server a command is forked from: one that is there, else one that ends with its starter, or one that stays."""


class ForkedCommand(Protocol):
    """A command that runs in a fork of a server, and is no child of this process."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def send_signal(self, number: int, *, group: bool = False) -> None:
        """Send it a signal; `group`: to the processes of its group, too, as a terminal does."""

    def wait(self) -> int:
        """Return its exit code, or the negative number of the signal that ended it, once it has ended."""


@runtime_checkable
class ForksCommands(Protocol):
    """What a command observer also has if a server that stays can fork its whole command."""

    def begin_fork_server(
        self, path: str, arguments: Sequence[str], environment: Mapping[str, str], use: ForkServerUse
    ) -> int | None:
        """Start a server if there is none, and `use` asks for one; return its process id if it still imports.

        Args:
            path: The path of the command's program.
            arguments: The program's name, and its arguments.
            environment: The command's environment.
            use: Which server.
        """

    def fork(
        self,
        path: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        mask: frozenset[int],
        use: ForkServerUse,
    ) -> ForkedCommand | None:
        """Return the command as a fork; None if it has to be executed. It may block for as long as imports take.

        Args:
            path: The path of its program.
            arguments: The program's name, and its arguments.
            environment: Its environment.
            mask: The signals that are blocked in it.
            use: Which server.
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
class KeepsForkServer(Protocol):
    """What a launcher also has if its engine has a fork server that may stay, for ``phasebus forkserver``."""

    def start_fork_server(self, idle_seconds: float | None) -> Mapping[str, Any]:
        """Start a server, if there is none, and return its state once it has imported.

        Args:
            idle_seconds: How long it waits for a command before it ends, in seconds; None for ever.
        """

    def ask_fork_server(self, request: str) -> Mapping[str, Any] | None:
        """Return the state of the server after a request, "status" or "stop"; None without one."""


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
class ServingEngine(Protocol):
    """What an engine also has if it serves requests over HTTP."""

    @property
    def url(self) -> str | None:
        """The URL of its server, ``http://host:port``, with /metrics below it; None if it does not serve."""


def url_of(engine: object) -> str | None:
    """Return the URL of an engine's server; None if it does not serve."""
    return engine.url if isinstance(engine, ServingEngine) else None


@runtime_checkable
class ObservableLauncher(Protocol):
    """What a launcher also has if its engine can be observed where a library starts it."""

    def observer(self) -> EngineObserver:
        """Return an observer of one start."""


@runtime_checkable
class NamesSteps(Protocol):
    """What a launcher or observer also has if it knows the steps of its engine's start beforehand."""

    @property
    def step_names(self) -> Sequence[str]:
        """The names of all steps that the engine can have; metrics of each begin at 0 when the engine starts."""


def announced_steps(engine: object) -> Mapping[str, str]:
    """Return the attribute of the engine's step that lists the names of the steps inside it, if `engine` knows them.

    Args:
        engine: A launcher or an observer.
    """
    return {"steps": ",".join(engine.step_names)} if isinstance(engine, NamesSteps) else {}


@runtime_checkable
class DescribesFactors(Protocol):
    """What a launcher or observer also has if it knows what the duration of its engine's start depends on."""

    def factors(
        self, args: Mapping[str, Any], environment: Mapping[str, str]
    ) -> Mapping[str, str | int | float | bool]:
        """Return the arguments, variables and versions that matter, by names such as ``args.max_model_len``.

        Runs with equal factors are compared. None of them may be a secret.

        Args:
            args: The engine's own arguments; an observer of a command reads those of the command instead.
            environment: The environment of the engine's processes.
        """


@runtime_checkable
class SuggestsLevers(Protocol):
    """What a launcher also has if it knows what shortens a start of its engine."""

    def levers(self, run: Run) -> Iterable[Lever]:
        """Return what can be changed about `run`, by its recorded steps; nothing if it started another engine."""


@runtime_checkable
class CachesInFolders(Protocol):
    """What a launcher also has if its engine keeps what it compiled or inspected for later starts."""

    def cache_variables(self, folder: str) -> Mapping[str, str]:
        """Return the variables that make the engine keep all of that in `folder` instead; models are not meant."""


@runtime_checkable
class CommandLauncher(Protocol):
    """What a launcher also has if its engine can be observed where a command starts it."""

    def recognizes(self, arguments: Sequence[str]) -> bool:
        """Return whether a command, with its arguments, starts this engine. It reads no file and starts nothing."""

    def command_observer(self, arguments: Sequence[str]) -> CommandObserver:
        """Return an observer of a command, whatever its arguments are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The installed version of an engine, and the supported ones.

    Attributes:
        title: The engine's name as its own documentation writes it.
        installed: The installed version; None without one.
        minimum: The first supported series: (major, minor).
        supported: The last release of each supported series, the oldest first; at least one.
    """

    title: str
    installed: str | None
    minimum: tuple[int, int]
    supported: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of ``phasebus doctor``; the attributes are those of its findings."""

    name: str
    value: str
    level: Literal["ok", "note", "fix"] = "ok"
    advice: str = ""


@runtime_checkable
class InspectableLauncher(Protocol):
    """What a launcher also has if ``phasebus doctor`` describes its engine; none of it imports the engine."""

    def versions(self) -> Versions:
        """Return the installed version, and the supported ones."""

    def missing_seams(self) -> Sequence[Seam]:
        """Return the private parts of the engine that phasebus uses and the installed version lacks."""

    def plugin_checks(self) -> Iterable[Check]:
        """Return whether an engine that is started here would load phasebus's plugin."""


@runtime_checkable
class ParsingLauncher(Protocol):
    """What a launcher also has if ``phasebus check --engine`` can check arguments with the engine's own parser."""

    def parse(
        self, model: str, args: Mapping[str, Any], env: Mapping[str, str], server: Mapping[str, Any] | None
    ) -> None:
        """Raise EngineError if the engine rejects its arguments or its model. It may import the engine, and starts nothing.

        Args:
            model: The path of the model, or its name where the engine finds it by itself.
            args: The engine's own arguments, by name.
            env: Environment variables of its processes.
            server: The arguments of its HTTP server, by name; None if it does not serve.
        """
