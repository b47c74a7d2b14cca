"""Sending notices of steps out of an engine's process, without ever holding it up."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import json
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

_MOST_WAITING = 10_000
SHUTDOWN_FLUSH_SECONDS = 1.0


class Reporter:
    """Sends notices, in order, from a thread of its own; what finds no room or nobody listening is lost.

    Args:
        url: Where they are posted to, as JSON lines.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "127.0.0.1", parts.port or 80, parts.path
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="phasebus reporter", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def send(self, notice: Mapping[str, Any]) -> None:
        """Have `notice` sent; never waits."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(notice)

    def close(self) -> None:
        """Send what is left, for a second at most."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
            self._thread.join(SHUTDOWN_FLUSH_SECONDS)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=5)
        for batch in self._batches():
            body = "".join(json.dumps(notice) + "\n" for notice in batch)
            for _ in range(2):  # a connection that was kept open may have gone stale
                try:
                    connection.request("POST", self._path, body.encode(), {"Content-Type": "application/x-ndjson"})
                    connection.getresponse().read()
                    break
                except (OSError, http.client.HTTPException):
                    connection.close()

    def _batches(self) -> Iterator[list[Mapping[str, Any]]]:
        """Yield whatever has come together since the last batch was sent, at once."""
        while (notice := self._waiting.get()) is not None:
            batch = [notice]
            with contextlib.suppress(queue.Empty):
                while (more := self._waiting.get_nowait()) is not None:
                    batch.append(more)
                yield batch
                return
            yield batch
