"""The hub at scale: a thousand simulated nodes through the real actor."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import ray
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from phasebus.initializer.cluster.hub.actor import HubActor
from phasebus.initializer.cluster.hub.wire import Address, Parcel, Wire
from tests.benchmarks.measuring import Number, Table
from tests.support.cluster_hub import Hub
from tests.support.programs import free_port
from tests.support.waiting import wait_until

_SCALES = (10, 100, 1_000)
_EVENTS = 60
_BATCHES = 10
"""The number of parcels in which a start of one minute is sent: events come in bursts, with many seconds between them."""

_AT_ONCE = 32
_PHASES = ("pre_initialization", "placement_group", "download", "engine_process", "engine_init", "post_initialization")
_STEPS = (
    "prepare_model",
    "load_model",
    "load_weights",
    "warm_up",
    "allocate_kv_cache",
    "compile",
    "capture_graphs",
    "device_init",
)
_ROUNDS = 5
_WARM = 20
"""How many nodes are sent before the measurement, so that one-time work, such as creating series, is not measured."""


@dataclass(frozen=True)
class Measured:
    """What the hub's process measured of itself.

    Attributes:
        cpu: CPU time per event, in microseconds.
        yardstick: That of decoding an event and one `inc`.
        arrived: How many events it counted.
        dropped: How many it counted as dropped.
        series: How many series /metrics has.
        render: How often as long its rendering took as that of as many bare series.
        seconds: How long rendering took.
    """

    cpu: float
    yardstick: float
    arrived: float
    dropped: float
    series: int
    render: float
    seconds: float


class MeasuredHub(HubActor):
    """The hub, which also measures its own cost."""

    def cpu(self) -> float:
        """Return the CPU time of the process so far, in seconds, all of Ray's threads included."""
        return time.process_time()

    def yardstick(self, lines: bytes, times: int) -> float:
        """Return the CPU time of decoding one of `lines` and one `inc`, in seconds."""
        counter = Counter("yardstick_total", "", ["label"], registry=CollectorRegistry()).labels("x")
        events = lines.splitlines()
        began = time.process_time()
        for _ in range(times):
            for event in events:
                json.loads(event)
                counter.inc()
        return (time.process_time() - began) / (times * len(events))

    def rendering(self) -> tuple[int, float, float]:
        """Return the number of series, the seconds to render them, and those to render as many bare ones."""
        self._state.refresh()
        text, _ = self._state.metrics.render("text/plain")
        series = sum(not line.startswith(b"#") for line in text.splitlines())
        bare = CollectorRegistry()
        gauge = Gauge("bare", "", ["node", "state"], registry=bare)
        for number in range(series):
            gauge.labels(f"node-{number}", "x").set(number)
        ours, theirs = [], []
        for _ in range(_ROUNDS):
            began = time.process_time()
            self._state.metrics.render("text/plain")
            middle = time.process_time()
            generate_latest(bare)
            ours.append(middle - began)
            theirs.append(time.process_time() - middle)
        return series, sorted(ours)[_ROUNDS // 2], sorted(theirs)[_ROUNDS // 2]

    def counted(self) -> tuple[float, float]:
        """Return how many events have arrived, and how many were counted as dropped."""
        names = ("phasebus_cluster_node_events_total", "phasebus_cluster_node_events_dropped_total")
        arrived, dropped = (
            sum(
                sample.value
                for metric in self._state.metrics.registry.collect()
                for sample in metric.samples
                if sample.name == name
            )
            for name in names
        )
        return arrived, dropped


def tables() -> Iterable[Table]:
    """Run a start of every size through a hub of its own."""
    table = Table(
        f"The hub: simulated nodes, {_EVENTS} events each in {_BATCHES} parcels, through the real actor",
        (
            "nodes",
            "events counted",
            "CPU per event",
            "of decode + inc",
            "series per 100 nodes",
            "render",
            "of bare",
        ),
        notes=[
            "CPU is all of the hub's process, Ray's threads included; decode + inc is measured in the same process.",
            "Series: a fixed part for all nodes together, and four for each; per 100 nodes from 100 nodes on.",
        ],
    )
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        for nodes in _SCALES:
            found = _measure(nodes)
            every = "all" if found.arrived == nodes * _EVENTS else f"{found.arrived:.0f} of {nodes * _EVENTS}"
            table.rows.append(
                (
                    str(nodes),
                    f"{every}, {found.dropped:.0f} dropped",
                    Number(found.cpu, " µs"),
                    Number(
                        found.cpu / found.yardstick,
                        mark=7.0 if nodes == max(_SCALES) else None,
                        beside=f"{found.yardstick:.1f} µs",
                    ),
                    Number(found.series / max(1, nodes / 100), "", mark=2_000) if nodes >= 100 else str(found.series),
                    Number(found.seconds * 1e3, " ms"),
                    Number(found.render, mark=1.5),
                )
            )
    finally:
        ray.shutdown()
    yield table


def _measure(nodes: int) -> Measured:
    served = Hub(free_port())
    hub = ray.remote(MeasuredHub).options(num_cpus=0).remote("127.0.0.1", served.port, None, "127.0.0.1")
    wait_until(lambda: served.says(503), "the hub has imported what it serves with")
    journals = [_journal(number) for number in range(nodes)]
    address = ray.get(hub.address.remote())
    yardstick = ray.get(hub.yardstick.remote(b"".join(journals[0]), 50))
    _send(address, "warm", [_journal(nodes + number) for number in range(_WARM)])
    before = ray.get(hub.cpu.remote())
    _send(address, "node", journals)
    cpu = ray.get(hub.cpu.remote()) - before
    arrived, dropped = ray.get(hub.counted.remote())
    series, ours, theirs = ray.get(hub.rendering.remote())
    ray.kill(hub)
    return Measured(
        cpu / (nodes * _EVENTS) * 1e6, yardstick * 1e6, arrived - _WARM * _EVENTS, dropped, series, ours / theirs, ours
    )


def _send(address: Address, name: str, journals: Sequence[Sequence[bytes]]) -> None:
    """Send what the nodes wrote, batch by batch, each node over a wire of its own and many at once."""
    with ExitStack() as wires, ThreadPoolExecutor(_AT_ONCE) as threads:
        nodes = [(f"{name}-{number}", wires.enter_context(closing(Wire(address)))) for number in range(len(journals))]
        offsets = [0] * len(nodes)

        def send(number: int, batch: int) -> None:
            node, wire = nodes[number]
            parcel = Parcel(node, offsets[number], 0, f"10.0.0.1:{number}")
            offsets[number] = wire.send(parcel, journals[number][batch])

        for batch in range(len(journals[0])):
            for _ in threads.map(send, range(len(nodes)), repeat(batch)):
                pass


def _journal(number: int) -> Sequence[bytes]:
    """Return the lines that a node's start writes, in batches."""
    node = f"node-{number}"
    lines = [
        _line(node, "JournalOpened", host="host-12", pid=4711, format=1),
        *_step(node, number, 0, "node", node)[:1],
    ]
    span = 1
    for phase in _PHASES:
        begin, end = _step(node, number, span, "phase", phase)
        lines.append(begin)
        span += 1
        for callback in ("custom_download", "pin_to_rack"):
            lines += _step(node, number, span, "callback", callback, phase=f"pre_{phase}")
            span += 1
        lines.append(end)
    for step in _STEPS:
        lines += _step(node, number, span, "engine_step", step, process="engine_core")
        span += 1
    for name in ("model.safetensors", "tokenizer.json"):
        lines += _step(node, number, span, "file", name, model="m", source="hub", bytes=1)
        span += 1
    lines += _step(node, number, span, "download", "m", model="m", source="hub", bytes=2)
    lines = [*lines[: _EVENTS - 1], _step(node, number, 0, "node", node)[1]]
    assert len(lines) == _EVENTS, len(lines)
    size = _EVENTS // _BATCHES
    return [b"".join(lines[start : start + size]) for start in range(0, _EVENTS, size)]


def _step(node: str, number: int, span: int, kind: str, name: str, **attributes: Any) -> tuple[bytes, bytes]:
    fields = {"span": f"{number:012x}{span:04x}", "parent": f"{number:012x}0000", "kind": kind, "name": name}
    attributes |= {"node": node, "run": "20260101T000000-abcd", "model": "m"}
    return (
        _line(node, "StepStarted", **fields, attributes=attributes),
        _line(node, "StepFinished", **fields, attributes=attributes, seconds=1.5, outcome="finished"),
    )


def _line(node: str, event: str, **fields: Any) -> bytes:
    whole = {
        "event": event,
        "run": "20260101T000000-abcd",
        "node": node,
        "trace": "f" * 32,
        "time_ns": time.time_ns(),
        "monotonic_ns": time.monotonic_ns(),
        **fields,
    }
    return json.dumps(whole).encode() + b"\n"
