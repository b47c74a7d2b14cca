"""A request to a fork server that stays, with the descriptors that have arrived with it."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from dataclasses import dataclass, field

from phasebus.initializer.engines.vllm.inside.forkserver.kept import messages


@dataclass(slots=True)
class Request:
    """A request.

    Attributes:
        connection: The connection to the client.
        descriptors: What has arrived with it.
    """

    connection: socket.socket
    descriptors: list[int] = field(default_factory=list)

    @property
    def numbers(self) -> Collection[int]:
        """The numbers of all its descriptors."""
        return {self.connection.fileno(), *self.descriptors}

    def refuse(self, reason: str, *, outdated: bool = False) -> None:
        """Refuse it; the client executes its command.

        Args:
            reason: Why.
            outdated: Whether the server has imported something else than the command needs.
        """
        messages.send(self.connection, {"refused": reason, "outdated": outdated})

    def close_descriptors(self) -> None:
        """Close what has arrived with it."""
        for descriptor in self.descriptors:
            os.close(descriptor)

    def close(self) -> None:
        """Close all its descriptors."""
        self.close_descriptors()
        self.connection.close()
