"""Sending notices of steps out of an engine's process, without ever blocking it."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import json
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import util
from typing import Any
from urllib.parse import urlsplit

_MAX_WAITING = 10_000
_TIMEOUT_SECONDS = 5.0
SHUTDOWN_FLUSH_SECONDS = 1.0


class Reporter:
    """Sends notices, in order, from a thread of its own; a notice that finds the queue full, or no receiver, is lost.

    A process that is forked from this one gets a thread of its own.

    Args:
        url: The receiver's URL; notices are posted there as JSON lines.
        token: The receiver's token.
    """

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "127.0.0.1", parts.port or 80, parts.path
        self._headers = {"Content-Type": "application/x-ndjson", "Authorization": f"Bearer {token}"}
        self._start()
        os.register_at_fork(after_in_child=self._start)
        atexit.register(self.close)
        # multiprocessing's processes may end without calling what is registered with atexit
        self._close_with_process()
        util.register_after_fork(self, Reporter._close_with_process)

    def send(self, notice: Mapping[str, Any]) -> None:
        """Queue `notice`; never waits."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(notice)

    def close(self) -> None:
        """Send what is queued, for `SHUTDOWN_FLUSH_SECONDS` at most."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
            self._thread.join(SHUTDOWN_FLUSH_SECONDS)

    def _start(self) -> None:
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="phasebus reporter", daemon=True)
        self._thread.start()

    def _close_with_process(self) -> None:
        util.Finalize(None, self.close, exitpriority=-1)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_SECONDS)
        for batch in self._batches(self._waiting):
            body = "".join(json.dumps(notice) + "\n" for notice in batch)
            for _ in range(2):  # a connection that was kept open may have gone stale
                try:
                    connection.request("POST", self._path, body.encode(), self._headers)
                    connection.getresponse().read()
                    break
                except (OSError, http.client.HTTPException):
                    connection.close()

    @staticmethod
    def _batches(waiting: queue.Queue[Mapping[str, Any] | None]) -> Iterator[list[Mapping[str, Any]]]:
        """Yield all that has been queued since the last batch, as soon as there is something."""
        while (notice := waiting.get()) is not None:
            batch = [notice]
            with contextlib.suppress(queue.Empty):
                while (more := waiting.get_nowait()) is not None:
                    batch.append(more)
                yield batch
                return
            yield batch
