"""Recording the journals of nodes on other machines, so that the history of a cluster is complete where its hub runs.

A node writes its own journal on its machine. The hub records nothing of a node on its own machine, nor where it finds that
file, in a folder that machines share.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from contextlib import suppress
from pathlib import Path
from platform import node as host_name
from typing import Final

from phasebus.telemetry.files import create_folder, open_regular
from phasebus.telemetry.journal import DecodeError, JournalOpened, decode_line, journal_path

logger = logging.getLogger("phasebus.cluster")

DRIVER: Final = "driver"
"""The name under which the driver sends its journal, which is that of the run."""

_MAX_WAITING: Final = 256
_MAX_BYTES: Final = 8 * 1024 * 1024
"""Maximum size of the journal of one node: a start needs a hundredth of it."""

_SKIPPED: Final = -1


class JournalRecorder:
    """Writes received journals to the folder of the run, in a thread of its own. A full disk or a slow one stops it.

    A journal that the hub receives again after a restart replaces what was recorded of it.
    """

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[str, int, bytes] | None] = queue.Queue(_MAX_WAITING)
        self._sizes: dict[str, int] = {}
        self._paths: dict[str, Path] = {}
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="phasebus hub recorder", daemon=True)
        self._thread.start()

    def put(self, node: str, offset: int, lines: bytes) -> None:
        """Record whole lines of the journal of `node`, from its byte `offset` on; never waits."""
        with suppress(queue.Full):  # what follows does not fit to what was recorded, and is left out
            self._waiting.put_nowait((node, offset, lines))

    def close(self) -> None:
        """Write everything, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (received := self._waiting.get()) is not None:
            node, offset, lines = received
            try:
                self._record(node, offset, lines)
            except Exception as error:  # noqa: BLE001  # whatever it is, the hub continues
                self._sizes[node] = _SKIPPED
                if not self._warned:
                    self._warned = True
                    logger.warning("cannot record the journal of %r: %s. The hub continues without it", node, error)

    def _record(self, node: str, offset: int, lines: bytes) -> None:
        if offset == 0:
            self._sizes[node] = self._begin(node, lines)
        size = self._sizes.get(node, _SKIPPED)
        if offset != size or size + len(lines) > _MAX_BYTES:
            self._sizes[node] = _SKIPPED
            return
        descriptor = open_regular(self._paths[node], os.O_WRONLY | os.O_APPEND, own=True)
        with os.fdopen(descriptor, "wb") as file:
            file.write(lines)
        self._sizes[node] = size + len(lines)

    def _begin(self, node: str, lines: bytes) -> int:
        """Create the file for a journal that begins with `lines`; return 0, or `_SKIPPED` if it is not recorded."""
        try:
            opened = decode_line(lines.partition(b"\n")[0])
        except DecodeError:
            return _SKIPPED
        if not isinstance(opened, JournalOpened) or opened.host == host_name():
            return _SKIPPED
        run = journal_path(Path(opened.run).name)
        name = node.replace(os.sep, "_").replace("\0", "_")
        own = run if node == DRIVER else run.with_suffix("") / f"{name}.jsonl"
        if own.exists():
            return _SKIPPED
        path = own if node == DRIVER else own.with_suffix(".received.jsonl")
        create_folder(path.parent)
        os.close(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, own=True))
        self._paths[node] = path
        return 0
