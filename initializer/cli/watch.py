"""`phasebus watch`: the page of a start, on a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click
import httpx
from rich.console import Console
from rich.live import Live

from phasebus.bus import PhasebusError
from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.live import live_tree, said

_ANNOUNCED = ("cluster", "node", "phase", "download", "engine")
_AGAIN_SECONDS = 1.0


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

    def _take(self, name: str, told: dict[str, Any]) -> list[dict[str, Any]]:
        self.offset = told["now"] - time.time()
        changed: list[dict[str, Any]] = told.get("steps", [])
        if name == "state":
            self.steps = {}
        self.steps.update((step["id"], step) for step in changed)
        return changed


@click.command()
@click.argument("url", default="http://127.0.0.1:9464")
@click.option("--until-ready", is_flag=True, help="End when it is ready (exit code 0) or has failed (1).")
def watch(url: str, *, until_ready: bool) -> None:
    """Show the start that is served at URL as it goes on: a tree on a terminal, lines elsewhere.

    It ends with Ctrl-C, or with what it watches: the exit code is 0 if that was ready, else 1.
    """
    with reported():
        watched = Watched(url if "://" in url else f"http://{url}")
        console = Console()
        if console.is_terminal:
            with Live(
                console=console,
                get_renderable=lambda: live_tree(dict(watched.steps), time.time() + watched.offset),
                refresh_per_second=4,
            ):
                outcome = _follow(watched, None, until_ready=until_ready)
        else:
            outcome = _follow(watched, console, until_ready=until_ready)
    if outcome != "finished":
        raise SystemExit(1)


def _follow(watched: Watched, console: Console | None, *, until_ready: bool) -> str | None:
    """Follow until it closes or, with `until_ready`, has settled; return how the outermost step stands."""
    told: dict[str, str] = {}
    connected = False
    while True:
        try:
            for changed in watched.hear():
                connected = True
                if console is not None:
                    _say(console, changed, told, time.time() + watched.offset)
                root = watched.root
                if until_ready and root is not None and root["outcome"] != "running":
                    return str(root["outcome"])
        except httpx.TransportError as error:
            if not connected:
                raise WatchError(
                    f"nobody answers at {watched.url} ({error}); is it the URL that `phasebus up` says?"
                ) from error
            if watched.root is not None and watched.root["outcome"] != "running":
                return str(watched.root["outcome"])
            time.sleep(_AGAIN_SECONDS)  # it may be started again
            continue
        return None if watched.root is None else str(watched.root["outcome"])


def _say(console: Console, changed: list[dict[str, Any]], told: dict[str, str], now: float) -> None:
    for step in changed:
        if step["kind"] in _ANNOUNCED and told.get(step["id"]) != step["outcome"]:
            told[step["id"]] = step["outcome"]
            console.print(said(step, now), soft_wrap=True)
