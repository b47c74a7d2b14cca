"""What a launcher or observer may offer if its engine can be forked from a process that has imported it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, runtime_checkable

from phasebus.bus import AttributeValue, Bus
from phasebus.initializer.engines.protocol import ForkServerUse, Launch

FORKSERVER: Final = "PHASEBUS_FORKSERVER"
"""The variable that names the fork server of an engine in Ray Serve: 0 for none, keep for one that stays."""

NO_FORKSERVER: Final[Mapping[str, str]] = {FORKSERVER: "0"}
"""In the environment of a command, it asks the engine to start its processes as if phasebus had no fork server."""


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

    async def publish_imports(
        self, bus: Bus, *, step: str, since_ns: int, attributes: Mapping[str, AttributeValue]
    ) -> None:
        """Publish the longest imports of the server, if it can be asked, as engine steps.

        Args:
            bus: Where they are published.
            step: The id of the step that waits for the server, which still runs.
            since_ns: When that step began, in nanoseconds since the epoch.
            attributes: The server's process.
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


@runtime_checkable
class BeginsForkServer(Protocol):
    """What a launcher also has if its engine can be forked from a server that was started before its process."""

    def begun_fork_server(self, launch: Launch) -> AbstractContextManager[None]:
        """Start a server, if there is none, which imports beside the block and ends after it; never raise.

        Engines that were forked by then go on.

        Args:
            launch: What the engine will be started with, as far as it is known.
        """

    def begin_kept_fork_server(self, launch: Launch) -> None:
        """Start a server that stays, if there is none; return while it imports, and never raise.

        Args:
            launch: What the engine will be started with, as far as it is known.
        """
