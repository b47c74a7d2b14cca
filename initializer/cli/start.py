"""What `up` and `demo` share: start a node, show where the time went, serve its metrics until told to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import click

from phasebus import __version__
from phasebus.bus import Bus
from phasebus.initializer.cli.blame import print_blame
from phasebus.initializer.cli.failures import Interrupted
from phasebus.initializer.cli.signals import until_signalled
from phasebus.initializer.cli.terminal import shown_to_people
from phasebus.initializer.cluster import Cluster, ClusterConfig, initialize_cluster
from phasebus.initializer.cluster.hub.start import chosen_port
from phasebus.initializer.node.config import LLMConfig
from phasebus.initializer.node.node import Node, initialize_node
from phasebus.initializer.node.supervision import engine_died
from phasebus.initializer.pipeline.wiring import observe_all
from phasebus.telemetry import Telemetry
from phasebus.telemetry.analysis import time_to_ready
from phasebus.telemetry.formatting import format_title
from phasebus.telemetry.journal import read_journal

C = TypeVar("C", bound=Callable[..., Any])


def starting_options(command: C) -> C:
    """Give a command the options of every command that starts something."""
    for option in (
        click.option("--verbose", "-v", is_flag=True, help="Show tracebacks, and what the callbacks do."),
        click.option("--port", type=click.IntRange(0, 65535), help="Port of /metrics; 0 picks a free one."),
        click.option("--once", is_flag=True, help="Stop when the node is ready, instead of serving until Ctrl-C."),
    ):
        command = option(command)
    return command


def start_and_serve(config: LLMConfig | ClusterConfig, *, prompt: str | None, once: bool, port: int | None) -> None:
    """Start a node or a cluster and serve its metrics until a signal comes, or only until it is ready.

    Args:
        config: The node or the cluster.
        prompt: What is generated from once the node is ready; None for nothing.
        once: Whether to stop there.
        port: The port of the service, over the configuration's.

    Raises:
        PhasebusError: The node did not start.
        Interrupted: A signal came before it was ready.
    """
    service = config.service.model_copy(update={} if port is None else {"port": port})
    if isinstance(config, ClusterConfig) or max(config.nodes, config.replicas or 1) > 1:
        # the hub serves a cluster, and is to be found from the first moment
        service = service.model_copy(update={"port": chosen_port(service)})
        config = ClusterConfig.of(config).model_copy(update={"service": service})
        telemetry = Telemetry(port=None)
        url = None if service.port is None else f"http://{service.host}:{service.port}"
    else:
        telemetry = Telemetry(host=service.host, port=service.port, trace_url=service.trace_url)
        url = None if telemetry.service is None else telemetry.service.url
    ready = False

    async def work() -> None:
        nonlocal ready
        async with telemetry, Bus("node", timing=True) as bus:
            journal = observe_all(bus, telemetry)
            _print_where(telemetry, journal, url)
            with shown_to_people(bus, telemetry.timeline, url if isinstance(config, ClusterConfig) else None):
                started = await _started(config, telemetry, bus)
            async with started as node:
                await _print_text(node, prompt)
                run = read_journal(journal)
                print_blame(run)
                click.echo(f"ready in {time_to_ready(run):.1f} s")
                ready = True
                if not once:
                    click.echo("serving metrics until Ctrl-C", err=True)
                    if isinstance(node, Node):
                        click.echo(await engine_died(node, config, bus, telemetry), err=True)
                    await anyio.sleep_forever()

    number = anyio.run(until_signalled, work, lambda: _waiting_for(telemetry))
    if number is not None and not ready:
        raise Interrupted(number)


async def _started(config: LLMConfig | ClusterConfig, telemetry: Telemetry, bus: Bus) -> Node | Cluster:
    if isinstance(config, ClusterConfig):
        return await initialize_cluster(config, telemetry=telemetry, bus=bus)
    return await initialize_node(config, telemetry=telemetry, bus=bus)


def _waiting_for(telemetry: Telemetry) -> str | None:
    """Return what began last of all that runs, in a few words."""
    running = [step for step in telemetry.timeline.state()["steps"] if step["outcome"] == "running"]
    last = max(running, key=lambda step: float(step["start"]), default=None)
    return None if last is None else format_title(last["kind"], last["name"])


async def _print_text(node: Node | Cluster, prompt: str | None) -> None:
    if prompt is not None and node.engine is not None:
        text = await node.engine.generate(prompt, max_tokens=24)
        click.echo(f"prompt   {prompt!r}")
        click.echo(f"text     {text!r}\n")


def _print_where(telemetry: Telemetry, journal: object, url: str | None) -> None:
    click.echo(f"phasebus {__version__}, run {telemetry.identity.run}, trace {telemetry.identity.trace}", err=True)
    click.echo(f"journal  {journal}", err=True)
    if url is not None:
        click.echo(f"metrics  {url}/metrics", err=True)
        click.echo(f"page     {url}/", err=True)
