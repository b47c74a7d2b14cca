"""What a launcher or observer may offer if its engine can be forked from a process that has imported it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol, runtime_checkable

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
class KeepsForkServer(Protocol):
    """What a launcher also has if its engine has a fork server that may stay, for ``phasebus forkserver``."""

    def start_fork_server(self, idle_seconds: float | None) -> Mapping[str, Any]:
        """Start a server, if there is none, and return its state once it has imported.

        Args:
            idle_seconds: How long it waits for a command before it ends, in seconds; None for ever.
        """

    def ask_fork_server(self, request: str) -> Mapping[str, Any] | None:
        """Return the state of the server after a request, "status" or "stop"; None without one."""
