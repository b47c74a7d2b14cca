"""`phasebus watch`: the page of a start, on a terminal."""

from __future__ import annotations

import time

import click
import httpx
from rich.console import Console
from rich.live import Live

from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.live import live_tree, said
from phasebus.initializer.cli.watched import Watched, WatchError

_AGAIN_SECONDS = 1.0


@click.command(short_help="Show a start that is going on, wherever it runs.")
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
    connected = False
    while True:
        try:
            for changed in watched.hear():
                connected = True
                if console is not None:
                    for step in watched.news(changed):
                        console.print(said(step, time.time() + watched.offset), soft_wrap=True)
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
