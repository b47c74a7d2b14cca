"""The commands that a fork server has forked, from the fork until the server has waited for them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from phasebus.initializer.engines.vllm.inside.forkserver.kept import messages


@dataclass(slots=True)
class RunningCommand:
    """A command that runs.

    Attributes:
        connection: The connection to its client.
        process: Its pidfd.
        has_client: Whether its client is there.
    """

    connection: socket.socket
    process: int
    has_client: bool = True

    def end(self) -> None:
        """Send it SIGTERM: its client has gone."""
        self.has_client = False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGTERM)

    def close(self) -> None:
        """Close its descriptors in this process."""
        self.connection.close()
        os.close(self.process)


class RunningCommands:
    """The commands that run; the object is true if there is one."""

    def __init__(self) -> None:
        self._commands: dict[int, RunningCommand] = {}

    def __bool__(self) -> bool:
        return bool(self._commands)

    @property
    def pids(self) -> Collection[int]:
        """Their process ids, in ascending order."""
        return sorted(self._commands)

    def add(self, pid: int, connection: socket.socket) -> None:
        """Add a process that has been forked, and send its client the id and a pidfd.

        Args:
            pid: The process id.
            connection: The connection to the client.

        Raises:
            OSError: There are too many descriptors; the process has been killed.
        """
        try:
            process = os.pidfd_open(pid)
        except OSError:  # it is reaped as every child
            os.kill(pid, signal.SIGKILL)
            raise
        self._commands[pid] = RunningCommand(connection, process)
        messages.send(connection, {"pid": pid}, [process])

    def register_clients(self, waiting: select.poll) -> Mapping[int, RunningCommand]:
        """Have `waiting` notice clients that go away; return the commands by the descriptors of their connections."""
        found = {each.connection.fileno(): each for each in self._commands.values() if each.has_client}
        for descriptor in found:
            waiting.register(descriptor, select.POLLRDHUP)
        return found

    def reap(self) -> bool:
        """Report the commands that have ended to their clients; return whether there are any."""
        any_ended = False
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if (command := self._commands.pop(ended[0], None)) is not None:
                    messages.send(command.connection, {"ended": os.waitstatus_to_exitcode(ended[1])})
                    command.close()
                    any_ended = True
        return any_ended

    def close(self) -> None:
        """Close the descriptors of all commands, in a fork of this process."""
        for command in self._commands.values():
            command.close()
