"""The steps of a start in another process, as its service tells of them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from phasebus.bus import PhasebusError

_ANNOUNCED = ("cluster", "node", "phase", "download", "engine")
_AGAIN_SECONDS = 0.5


class WatchError(PhasebusError):
    """Raised when there is nothing to watch at a URL."""


class Watched:
    """The steps of a start somewhere else, as far as they have been told.

    Args:
        url: The URL of the service.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.steps: dict[str, dict[str, Any]] = {}
        self.offset = 0.0
        self._announced: dict[str, str] = {}
        self._seen: str | None = None

    @property
    def root(self) -> dict[str, Any] | None:
        """The outermost step; None before there is one."""
        return next((step for step in self.steps.values() if step.get("parent") not in self.steps), None)

    def hear(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the steps that have changed, each time some have, until the other side closes in order.

        Raises:
            WatchError: Nobody answers there, or somebody else.
            httpx.TransportError: The connection was lost after it had stood.
        """
        headers = {} if self._seen is None else {"Last-Event-ID": self._seen}
        timeout = httpx.Timeout(30.0)  # there is a heartbeat every ten seconds
        with httpx.stream("GET", f"{self.url}/events", headers=headers, timeout=timeout) as answer:
            if answer.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
                raise WatchError(f"{self.url} is no service of phasebus: it answers {answer.status_code} to /events")
            name = ""
            for line in answer.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "id":
                    self._seen = value
                elif field == "data":
                    yield self._take(name, json.loads(value))
                    if name == "closed":
                        return

    def news(self, changed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield those of the steps that have `changed` that are worth a line: each when it begins and when it ends."""
        for step in changed:
            if step["kind"] in _ANNOUNCED and self._announced.get(step["id"]) != step["outcome"]:
                self._announced[step["id"]] = step["outcome"]
                yield step

    def _take(self, name: str, told: dict[str, Any]) -> list[dict[str, Any]]:
        self.offset = told["now"] - time.time()
        changed: list[dict[str, Any]] = told.get("steps", [])
        if name == "state":
            self.steps = {}
        self.steps.update((step["id"], step) for step in changed)
        return changed


class Follower:
    """Follows a start from a thread of its own, from when its service first answers; what it cannot hear it leaves out.

    Args:
        watched: The start.
        tell: Called in that thread with the steps that have changed.
    """

    def __init__(self, watched: Watched, tell: Callable[[list[dict[str, Any]]], None] = lambda _: None) -> None:
        self._watched = watched
        self._tell = tell
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="phasebus follower", daemon=True).start()

    def close(self) -> None:
        """Tell nothing more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(_AGAIN_SECONDS):
            try:
                for changed in self._watched.hear():
                    if self._ended.is_set():
                        return
                    self._tell(changed)
            except (httpx.TransportError, WatchError):
                continue
