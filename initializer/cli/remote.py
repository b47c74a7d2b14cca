"""The steps of a start in another process, read from its HTTP service."""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx

from phasebus.bus import PhasebusError
from phasebus.printable import printable_text
from phasebus.telemetry.formatting import NOTABLE_SECONDS
from phasebus.telemetry.remaining import count_down
from phasebus.telemetry.service import Access, offered_token

_ANNOUNCED = ("cluster", "node", "phase", "download", "engine")
_RECONNECT_SECONDS = 0.5
_SILENCE_SECONDS = 30.0  # the service sends a heartbeat every ten seconds


MAX_LINE_CHARACTERS = 16_000_000
"""A service sends the steps in parts of 65,536 characters, and at most one step more."""

_STEP_FIELDS = {"id": str, "node": str, "kind": str, "name": str, "outcome": str, "start": int | float}


class WatchError(PhasebusError):
    """Raised when a URL is not that of a phasebus service."""


class RemoteStart:
    """The steps of a start in another process, as received so far.

    Args:
        url: The URL of the service.
        token: Its token; by default PHASEBUS_TOKEN, or else what a service of this user on this machine offers.

    Attributes:
        steps: The steps by their ids.
        about: What else is known of the start: its time ``remaining`` and the steps that are ``stuck``.
        offset: The difference of the other machine's clock to this one's, in seconds; positive if it is ahead.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._token = token or Access.from_environment().credential
        self.url = url.rstrip("/")
        self.steps: dict[str, dict[str, Any]] = {}
        self.about: dict[str, Any] = {}
        self.offset = 0.0
        self._announced: dict[str, str] = {}
        self._last_event: str | None = None

    @property
    def root(self) -> dict[str, Any] | None:
        """The outermost step; None before there is one."""
        return next((step for step in self.steps.values() if step.get("parent") not in self.steps), None)

    def remaining(self, now: float) -> dict[str, Any] | None:
        """Return the time remaining at `now`, in seconds since the epoch on this machine; None if unknown."""
        return count_down(self.about.get("remaining"), now + self.offset - self.about.get("now", now))

    def changes(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the changed steps after each change, until the service announces its end.

        Raises:
            WatchError: The URL is not that of a phasebus service, or cannot be used.
            httpx.TransportError: The connection failed or was lost.
        """
        headers = {} if self._last_event is None else {"Last-Event-ID": self._last_event}
        if (token := self._token or local_token(self.url)) is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            client = httpx.Client(timeout=_SILENCE_SECONDS, trust_env=not is_loopback(self.url))
        except (ValueError, ImportError) as error:  # a proxy's URL, or a proxy whose package is not installed
            raise WatchError(f"cannot use {self.url} through a proxy: {error}") from error
        try:
            with client, client.stream("GET", f"{self.url}/events", headers=headers) as response:
                yield from self._received(response)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise WatchError(f"cannot use {self.url}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WatchError(f"{self.url} sent an event that is not one of a phasebus service: {error}") from error

    def _received(self, response: httpx.Response) -> Iterator[list[dict[str, Any]]]:
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE and "retry-after" in response.headers:
            raise httpx.ReadError(f"{self.url} has too many readers")
        if response.status_code in (401, 403):
            wanted = "set PHASEBUS_TOKEN to the token of the service; without one, it serves other machines no steps"
            raise WatchError(f"{self.url} rejects the request (HTTP {response.status_code}): {wanted}")
        if response.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
            raise WatchError(f"{self.url} is not a phasebus service: GET /events returned {response.status_code}")
        name = ""
        for line in _lines(response.iter_text()):
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "id":
                self._last_event = value
            elif field == "data":
                content = _printable(json.loads(value, parse_constant=_rejected))
                for step in content.get("steps", ()):
                    _check_step(step)
                yield self._update(name, content)
                if name == "closed":
                    return

    def announced(self, changed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield those of the `changed` steps that are worth a line, once.

        They are the start and the end of a node or cluster, and the end of another step of a major kind that failed or took a
        noticeable time.
        """
        for step in changed:
            outcome = step["outcome"]
            if step["kind"] not in _ANNOUNCED or self._announced.get(step["id"]) == outcome:
                continue
            self._announced[step["id"]] = outcome
            is_long = "end" in step and step["end"] - step["start"] >= NOTABLE_SECONDS
            if step["kind"] in ("cluster", "node") or is_long or outcome not in ("running", "finished"):
                yield step

    def _update(self, name: str, content: dict[str, Any]) -> list[dict[str, Any]]:
        self.offset = content["now"] - time.time()
        changed: list[dict[str, Any]] = content.get("steps", [])
        if name != "closed":
            self.about.update({key: value for key, value in content.items() if key not in ("steps", "removed")})
        if name == "state":
            self.steps = {}
        self.steps.update((step["id"], step) for step in changed)
        for id_ in content.get("removed", ()):
            self.steps.pop(id_, None)
            self._announced.pop(id_, None)
        return changed


class Follower:
    """Follows a start in a thread of its own, as soon as its service answers.

    Args:
        start: The start.
        on_change: Called in that thread with the steps that have changed.
        reconnect_seconds: The pause before each attempt to connect, in seconds.
    """

    def __init__(
        self,
        start: RemoteStart,
        on_change: Callable[[list[dict[str, Any]]], None] = lambda _: None,
        *,
        reconnect_seconds: float = _RECONNECT_SECONDS,
    ) -> None:
        self._start = start
        self._reconnect_seconds = reconnect_seconds
        self._on_change = on_change
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="phasebus follower", daemon=True).start()

    def close(self) -> None:
        """Stop calling `on_change`."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._reconnect_seconds):
            try:
                for changed in self._start.changes():
                    if self._ended.is_set():
                        return
                    self._on_change(changed)
            except (httpx.TransportError, WatchError):
                continue


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of an event stream, which end with a line feed.

    Raises:
        ValueError: A line has more than `MAX_LINE_CHARACTERS`.
    """
    begun: list[str] = []
    length = 0
    for text in texts:
        first, *others = text.split("\n")
        for other in [*others, None]:
            begun.append(first)
            length += len(first)
            if length > MAX_LINE_CHARACTERS:
                raise ValueError(f"a line has more than {MAX_LINE_CHARACTERS:,} characters")
            if other is not None:
                yield "".join(begun).removesuffix("\r")
                begun, length, first = [], 0, other


def _rejected(constant: str) -> float:
    raise ValueError(f"a number is {constant}")


def _printable(value: Any) -> Any:
    """Return plain data with printable texts: the service may be any other."""
    if isinstance(value, str):
        return printable_text(value)
    if isinstance(value, list):
        return [_printable(each) for each in value]
    if isinstance(value, dict):
        return {printable_text(name): _printable(each) for name, each in value.items()}
    return value


def _check_step(step: Any) -> None:
    """Raise TypeError unless a step has the fields that are shown of each."""
    for name, kind in _STEP_FIELDS.items():
        if not isinstance(step[name], kind):
            raise TypeError(f"the {name} of a step is {step[name]!r:.100}")


def local_token(url: str) -> str | None:
    """Return the token of a service on this machine, if it is this user's and needs one only from others."""
    try:
        port = httpx.URL(url).port
    except httpx.InvalidURL:
        return None
    return offered_token(port) if port is not None and is_loopback(url) else None


def is_loopback(url: str) -> bool:
    """Return whether a URL is one of this machine, for which a proxy cannot be used."""
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
