"""Sending a process's journal to the hub, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from phasebus.initializer.cluster.hub.wire import MAX_PARCEL_BYTES

logger = logging.getLogger("phasebus.cluster")

Send = Callable[[int, bytes], int]
"""Sends lines that begin at an offset of the journal; returns the offset up to which the hub has everything."""

_POLL_SECONDS: Final = 1.0
_KEEP_ALIVE_SECONDS: Final = 2.0
_FIRST_ANSWER_SECONDS: Final = 60.0
"""Time that a starting hub may be unreachable before a warning is logged, in seconds."""


class JournalSender:
    """Reads a journal as it grows and sends the lines that the hub does not have. A restarted hub receives all lines again.

    Unsent lines stay on the disk, so nothing is buffered in memory and nothing is dropped.

    Args:
        journal: The path of the journal.
        send: Sends lines. It is called in the sender's thread and may block. If it raises, it is called again later.
        disconnect: Called in the sender's thread at the end.
        poll_seconds: The pause between two checks for new lines, in seconds.
        keep_alive_seconds: Time without new lines after which a message without any is sent, in seconds.
    """

    def __init__(
        self,
        journal: Path,
        send: Send,
        disconnect: Callable[[], None] = lambda: None,
        *,
        poll_seconds: float = _POLL_SECONDS,
        keep_alive_seconds: float = _KEEP_ALIVE_SECONDS,
    ) -> None:
        self._journal = journal
        self._send = send
        self._disconnect = disconnect
        self._poll_seconds = poll_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._closing = threading.Event()
        self._offset = 0
        self._sent_at = 0.0
        self._began = time.monotonic()
        self._reached = False
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="phasebus hub sender", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Send the remaining lines, for `seconds` at most."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        closing = False
        while True:
            more = self._send_some()
            if closing and not more:
                break
            if not more:
                closing = self._closing.wait(self._poll_seconds)
        self._disconnect()

    def _send_some(self) -> bool:
        """Send the next lines, or a keep-alive without any; return whether more lines may be ready to send."""
        try:
            lines = self._next_lines()
            if not lines and time.monotonic() - self._sent_at < self._keep_alive_seconds:
                return False
            sent_from, self._offset = self._offset, self._send(self._offset, lines)
            self._sent_at, self._reached = time.monotonic(), True
        except Exception as error:  # noqa: BLE001  # no error of the hub may reach the start-up
            self._warn(error)
            return False
        return self._offset != sent_from

    def _warn(self, error: Exception) -> None:
        if not self._warned and (self._reached or time.monotonic() - self._began > _FIRST_ANSWER_SECONDS):
            self._warned = True
            reason = str(error).partition("\n")[0] or type(error).__name__
            logger.warning("cannot reach the hub: %s. The start goes on; the hub receives the journal later", reason)

    def _next_lines(self) -> bytes:
        with self._journal.open("rb") as file:
            file.seek(self._offset)
            lines = file.read(MAX_PARCEL_BYTES)
        return lines[: lines.rfind(b"\n") + 1]
