"""Sending a process's journal to the hub, in a thread that nobody waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from phasebus.initializer.cluster.hub.wire import MOST_BYTES

logger = logging.getLogger("phasebus.cluster")

Send = Callable[[int, bytes], int]
"""Sends lines that begin at an offset of the journal; returns the offset up to which the hub has everything."""

_PAUSE_SECONDS: Final = 1.0
_SIGN_OF_LIFE_SECONDS: Final = 2.0
_FIRST_ANSWER_SECONDS: Final = 60.0
"""How long a hub that is only starting, as its nodes are, may be away without a word, in seconds."""


class JournalSender:
    """Reads a journal as it grows and sends what the hub has not had; from the beginning to a hub that began anew.

    What waits is on the disk already, so nothing has to be kept in memory, and nothing is dropped.

    Args:
        journal: The journal.
        send: How it is sent; may block and may fail, in which case it is tried again. Called in a thread of its own.
        hang_up: Called there in the end.
        pause: How long to wait for more lines, in seconds.
    """

    def __init__(
        self, journal: Path, send: Send, hang_up: Callable[[], None] = lambda: None, *, pause: float = _PAUSE_SECONDS
    ) -> None:
        self._journal = journal
        self._send = send
        self._hang_up = hang_up
        self._pause = pause
        self._ending = threading.Event()
        self._offset = 0
        self._said = 0.0
        self._began = time.monotonic()
        self._reached = False
        self._told = False
        self._thread = threading.Thread(target=self._run, name="phasebus hub sender", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Send what is left, for `seconds` at most."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        last = False
        while True:
            more = self._send_some()
            if last and not more:
                break
            if not more:
                last = self._ending.wait(self._pause)
        self._hang_up()

    def _send_some(self) -> bool:
        """Send the next lines, or after a while without any a sign of life; return whether there may be more at once."""
        try:
            lines = self._next_lines()
            if not lines and time.monotonic() - self._said < _SIGN_OF_LIFE_SECONDS:
                return False
            sent_from, self._offset = self._offset, self._send(self._offset, lines)
            self._said, self._reached = time.monotonic(), True
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not reach the start-up
            if not self._told and (self._reached or time.monotonic() - self._began > _FIRST_ANSWER_SECONDS):
                self._told = True
                why = str(error).partition("\n")[0] or type(error).__name__
                logger.warning("the hub cannot be reached (%s); the start goes on, and it is told later", why)
            return False
        return self._offset != sent_from

    def _next_lines(self) -> bytes:
        with self._journal.open("rb") as file:
            file.seek(self._offset)
            lines = file.read(MOST_BYTES)
        return lines[: lines.rfind(b"\n") + 1]
