"""Starting a node or a cluster for `up` and `demo`: start, show the durations, serve metrics until a signal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio

from phasebus import __version__
from phasebus.bus import Bus
from phasebus.initializer.cli.blame import print_blame
from phasebus.initializer.cli.failures import FailureReport, Interrupted, reason_of
from phasebus.initializer.cli.history_lines import history_lines
from phasebus.initializer.cli.linger import linger, linger_seconds
from phasebus.initializer.cli.output import log_warnings, write_err, write_out
from phasebus.initializer.cli.remote import RemoteStart
from phasebus.initializer.cli.signals import until_signalled
from phasebus.initializer.cli.terminal import show_progress
from phasebus.initializer.cluster import Cluster, ClusterConfig, initialize_cluster
from phasebus.initializer.cluster.hub.start import chosen_port
from phasebus.initializer.engines.optional import url_of
from phasebus.initializer.node.config import LLMConfig, ServiceConfig
from phasebus.initializer.node.node import Node, initialize_node
from phasebus.initializer.node.supervision import engine_died
from phasebus.initializer.pipeline.wiring import available_port, available_telemetry, observe_all
from phasebus.initializer.ray.signals import restore_handlers
from phasebus.telemetry import PortTakenError, Telemetry, Timeline
from phasebus.telemetry.analysis import time_to_ready
from phasebus.telemetry.formatting import format_title, format_usual
from phasebus.telemetry.journal import read_journal
from phasebus.telemetry.service import OWN_TOKEN, Server, build_app, url_of_address


def start_and_serve(
    config: LLMConfig | ClusterConfig,
    report: FailureReport,
    *,
    prompt: str | None,
    once: bool,
    service: Mapping[str, object],
) -> None:
    """Start a node or a cluster, and serve its metrics until a signal arrives, or with `once` until it is ready.

    After a failed start, the metrics are served for `linger_seconds` of the service.

    Args:
        config: The node or the cluster.
        report: Writes the error of a failed start, before the metrics linger.
        prompt: Prompt to generate from once the node is ready; None for none.
        once: Whether to stop when the node is ready.
        service: Fields of the service that the command line sets; None for the configured value.

    Raises:
        PhasebusError: The node did not start.
        Interrupted: A signal arrived before the node was ready.
    """
    log_warnings()
    settings = config.service.model_copy(update={name: each for name, each in service.items() if each is not None})
    if isinstance(config, ClusterConfig) or max(config.nodes, config.replicas or 1) > 1:
        # The hub serves a cluster. Its port is chosen here, because a restarted hub must use the same one.
        settings = _reachable(settings)
        config = ClusterConfig.of(config).model_copy(update={"service": settings})
        telemetry = available_telemetry(port=None, warn=_warn)
        url = None if settings.port is None else url_of_address(settings.host, settings.port)
    else:
        telemetry = available_telemetry(
            host=settings.host, port=settings.port, trace_url=settings.trace_url, access=settings.access, warn=_warn
        )
        url = None if telemetry.service is None else telemetry.service.url
    ready = False
    failure: Exception | None = None

    async def work() -> None:
        nonlocal ready, failure
        began = time.monotonic()
        async with telemetry, Bus("node", timing=True) as bus:
            journal = observe_all(bus, telemetry)
            _print_where(telemetry, journal, url)
            is_served = isinstance(config, ClusterConfig) and url is not None
            nodes = RemoteStart(str(url), OWN_TOKEN) if is_served else None
            try:
                with show_progress(bus, telemetry.timeline, nodes):
                    started = await _started(config, telemetry, bus)
            except Interrupted:
                raise
            except Exception as error:
                failure = error
                report.write(error)
                await _linger(telemetry, settings if url is not None else None, error, once=once)
                raise
            async with started as node:
                await _print_text(node, prompt)
                _print_times(journal, time.monotonic() - began, telemetry.timeline)
                ready = True
                if not once:
                    _print_servers(node)
                    write_err("serving metrics until Ctrl-C")
                    with _ready_until_it_stops(telemetry):
                        if isinstance(node, Node):
                            write_err(await engine_died(node, config, bus, telemetry))
                        await anyio.sleep_forever()

    number = anyio.run(until_signalled, work, lambda: _waiting_for(telemetry))
    if failure is not None:  # a signal has ended the lingering
        raise failure
    if number is not None and not ready:
        raise Interrupted(number)


@contextmanager
def _ready_until_it_stops(telemetry: Telemetry) -> Iterator[None]:
    try:
        yield
    finally:
        telemetry.mark_as_stopping()


async def _linger(telemetry: Telemetry, service: ServiceConfig | None, error: Exception, *, once: bool) -> None:
    """Serve the metrics of a failed start for a while. With `once`, nothing lingers by default."""
    telemetry.push_metrics()
    if service is None:
        return
    if telemetry.status.describe()["status"] == "starting":  # no step has failed
        telemetry.status.settle(reason_of(error))
    configured = 0.0 if once and service.linger_seconds is None else service.linger_seconds
    if seconds := linger_seconds(configured, service.host):
        restore_handlers()  # an engine or a cluster on Ray has been shut down
        with _serving(telemetry, service):
            await linger(seconds, anyio.sleep)


@contextmanager
def _serving(telemetry: Telemetry, service: ServiceConfig) -> Iterator[None]:
    """Serve `telemetry` during the block, also after the hub of a cluster, which served it before, has ended."""
    if telemetry.service is not None:
        yield
        return
    assert service.port is not None  # noqa: S101  # the hub had one
    app = partial(build_app, telemetry.metrics, telemetry.status, telemetry.timeline)
    try:
        server = Server(app, service.host, service.port, access=service.access)
    except PortTakenError as error:
        _warn(f"the metrics of the failed start are not served: {error}")
        yield
        return
    server.start()
    try:
        yield
    finally:
        server.close()


def _reachable(service: ServiceConfig) -> ServiceConfig:
    """Return `service` with a free port, or without a port."""
    port = available_port(
        lambda candidate: chosen_port(service.model_copy(update={"port": candidate})), service.host, service.port, _warn
    )
    return service.model_copy(update={"port": port})


def _warn(message: str) -> None:
    write_err(f"phasebus: {message}")


def _print_times(journal: Path, seconds: float, timeline: Timeline) -> None:
    """Print the blame table, if there is a journal, and the time to ready beside the usual one."""
    try:
        run = read_journal(journal)
        print_blame(run)
        seconds = time_to_ready(run)
        for line in history_lines(run):
            write_out(line)
    except Exception as error:  # noqa: BLE001  # no error of the table may end a ready node
        if _has_content(journal):  # otherwise a warning about the journal was logged
            _warn(f"the times of the steps are not shown: {error}")
    usual = next(
        (step["usual"] for step in timeline.state()["steps"] if "parent" not in step and "usual" in step), None
    )
    write_out(f"ready in {seconds:.1f} s{f', usually {format_usual(usual)}' if usual else ''}")


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:  # also where this user may not search the folder
        return False


async def _started(config: LLMConfig | ClusterConfig, telemetry: Telemetry, bus: Bus) -> Node | Cluster:
    if isinstance(config, ClusterConfig):
        return await initialize_cluster(config, telemetry=telemetry, bus=bus)
    return await initialize_node(config, telemetry=telemetry, bus=bus)


def _waiting_for(telemetry: Telemetry) -> str | None:
    """Return the title of the running step that began last; None if no step runs."""
    running = [step for step in telemetry.timeline.state()["steps"] if step["outcome"] == "running"]
    last = max(running, key=lambda step: float(step["start"]), default=None)
    return None if last is None else format_title(last["kind"], last["name"])


async def _print_text(node: Node | Cluster, prompt: str | None) -> None:
    if prompt is not None and node.engine is not None:
        text = await node.engine.generate(prompt, max_tokens=24)
        write_out(f"prompt   {prompt!r}")
        write_out(f"text     {text!r}\n")


def _print_servers(node: Node | Cluster) -> None:
    """Print where requests are served."""
    servers = [url_of(node.engine)] if isinstance(node, Node) else [each.url for each in node.nodes]
    for url in filter(None, servers):
        write_out(f"serving  {url}")


def _print_where(telemetry: Telemetry, journal: Path, url: str | None) -> None:
    write_err(f"phasebus {__version__}, run {telemetry.identity.run}")
    write_err(f"trace    {telemetry.identity.trace}")
    write_err(f"journal  {journal}")
    if url is not None:
        write_err(f"metrics  {url}/metrics")
        write_err(f"page     {url}/")
