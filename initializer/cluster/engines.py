"""Starting one engine of a cluster: start an actor on each node, ping it until the node is ready, retry after a loss."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from phasebus.bus import Bus
from phasebus.clock import now_ns
from phasebus.initializer.cluster.clocks import clock_offset_seconds
from phasebus.initializer.cluster.events import NodeLostError
from phasebus.initializer.cluster.heartbeat import SilentError, answered_or_silent
from phasebus.initializer.cluster.layout import EngineSeats, Seat
from phasebus.initializer.cluster.lost_nodes import close_steps, recorded_steps
from phasebus.initializer.cluster.node_actor import NodeActor
from phasebus.initializer.cluster.node_runtime import NodeReport
from phasebus.initializer.cluster.nodes import ClusterNode, StartingNode, ready_node, stop_nodes
from phasebus.initializer.engines.registry import NO_ENGINE, find_launcher
from phasebus.initializer.node.keys import ENGINE_ARGS, PLACEMENT_BUNDLE, PLACEMENT_GROUP
from phasebus.initializer.ray.actors import Actor, start_actor
from phasebus.initializer.ray.calls import ActorDiedError, answer
from phasebus.initializer.ray.cluster import RAY
from phasebus.initializer.ray.config import RayConfig
from phasebus.telemetry import RunIdentity
from phasebus.telemetry.journal import RecordedStep
from phasebus.telemetry.span_names import LINKED_TO

logger = logging.getLogger("phasebus.cluster")

_THREADS = 8
_HUB_SECONDS = 2.0
_PROCESS_SECONDS = 120.0
"""Minimum timeout for the start of a node's process, in seconds; it is slow on a busy machine."""

_FORWARDED = ("OTEL_", "PHASEBUS_")
"""Prefixes of the environment variables that are passed from the driver to the nodes."""


class EngineStart:
    """The start of one engine on its nodes.

    Args:
        engine: The engine and its places.
        bus: The driver's bus, on which the ends of a lost node's steps are published.
        identity: The driver's identity.
        step: The id of the step that the nodes' steps belong to.
        group: The placement group of the cluster.
        given: Initial values of the context of every node.
        hub: Ray's handle of the hub; None without one.
        silence: Time without an answer to a ping after which a node counts as lost, in seconds.
        started: The list that ready nodes are added to; the caller shuts them down when the cluster is closed.
    """

    def __init__(
        self,
        engine: EngineSeats,
        *,
        bus: Bus,
        identity: RunIdentity,
        step: str,
        group: Any,
        given: Mapping[str, Any],
        hub: Any,
        silence: float,
        started: list[StartingNode],
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._identity = identity
        self._step = step
        self._group = group
        self._given = given
        self._hub = hub
        self._silence = silence
        self._started = started
        self._actor_steps: dict[str, str] = {}

    async def run(self) -> Sequence[ClusterNode]:
        """Start the nodes and return them when all are ready.

        Raises:
            NodeLostError: A node was lost, and no attempt is left.
            Exception: The error of a node, and no attempt is left; a note names the node.
        """
        for tried in range(self._engine.config.retries + 1):
            try:
                return await self._try("" if tried == 0 else f"-try{tried + 1}")
            except Exception:
                if tried == self._engine.config.retries:
                    raise
        raise AssertionError  # a number of retries is never negative

    async def _try(self, suffix: str) -> Sequence[ClusterNode]:
        nodes: list[StartingNode] = []
        try:
            await self._start_actors(suffix, nodes)
            leader, *others = nodes
            answers = [self._start_node(node, [], follows=True) for node in others]
            reports = await self._all_ready(
                [(leader, self._start_node(leader, answers, follows=False)), *zip(others, answers, strict=True)]
            )
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stop_nodes(nodes)
            raise
        self._started += nodes
        return [ready_node(node, report) for node, report in zip(nodes, reports, strict=True)]

    async def _start_actors(self, suffix: str, nodes: list[StartingNode]) -> None:
        """Start the actors of all nodes in parallel; add the started ones to `nodes`, in order, even if another one fails."""
        actors: dict[int, StartingNode] = {}
        errors: list[Exception] = []

        async def start(number: int, seat: Seat) -> None:
            try:
                actors[number] = await self._start_actor(seat, suffix, leads=number == 0)
            except Exception as error:  # noqa: BLE001  # raised again below: the task group would wrap it
                errors.append(error)
                tasks.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as tasks:
                for number, seat in enumerate(self._engine.seats):
                    tasks.start_soon(start, number, seat)
        finally:
            nodes += [actors[number] for number in sorted(actors)]
        if errors:
            raise errors[0]

    async def _start_actor(self, seat: Seat, suffix: str, *, leads: bool) -> StartingNode:
        name, config = seat.node + suffix, self._engine.config
        replaced = self._actor_steps.get(seat.node)
        link = {} if replaced is None else {LINKED_TO: self._identity.traceparent(replaced)}
        environment = {k: v for k, v in os.environ.items() if k.startswith(_FORWARDED)}
        seconds = max(_PROCESS_SECONDS, config.placement.timeout_seconds)
        try:
            async with self._bus.step(RAY, "start_node_actor", attributes={"member": name, **link}) as step:
                self._actor_steps[seat.node] = step.id
                with anyio.fail_after(seconds):
                    actor = await start_actor(
                        NodeActor,
                        self._identity.of_member(name, self._step),
                        environment,
                        config.service,
                        config.engine if leads else NO_ENGINE,
                        len(self._engine.seats) if leads else 1,
                        placement_group=self._group,
                        bundle=seat.bundle,
                        resources={},
                        runtime_env={},
                        threads=_THREADS,
                    )
                journal, offset = await _journal_and_clock_offset(actor)
                if offset is not None:
                    step.attributes["clock_offset_seconds"] = offset
                    logger.warning(
                        "the clock of %s, the machine of the node %s, is %g s %s this machine's; its spans are displaced by that",
                        *(actor.host, name, abs(offset), "ahead of" if offset > 0 else "behind"),
                    )
            return StartingNode(name, seat.bundle, actor, journal)
        except ActorDiedError as error:
            raise NodeLostError(f"the node {name!r} was lost before its start: {error}") from error
        except TimeoutError as error:
            raise NodeLostError(
                f"cannot start the node {name!r} within {seconds:g} s: Ray has lost the machine of its bundle, and no other "
                "one has room. Add a machine, or reduce the bundles"
            ) from error

    def _start_node(self, node: StartingNode, others: Sequence[Any], *, follows: bool) -> Any:
        """Start a node; return the reference to its report."""
        config = self._engine.config
        given = {**self._given, PLACEMENT_GROUP: self._group, PLACEMENT_BUNDLE: node.bundle}
        update: dict[str, Any] = {
            "name": None,
            "nodes": 1,
            "replicas": None,
            "ray": RayConfig(),
            "driver_callbacks": [],
            "serve": None if config.serve is None else config.serve.with_next_free_port(),
        }
        if follows:
            update["engine"] = NO_ENGINE
        elif len(self._engine.seats) > 1:
            args = given.get(ENGINE_ARGS, config.engine_args)
            launcher = find_launcher(config.engine)
            given[ENGINE_ARGS], update["engine_env"] = launcher.span_nodes(
                args, config.engine_env, self._engine.bundles
            )
        return node.actor.handle.start.remote(config.model_copy(update=update), given, list(others), self._hub)

    async def _all_ready(self, asked: Sequence[tuple[StartingNode, Any]]) -> list[NodeReport]:
        """Return the reports of all nodes, in order; the first failure cancels the others."""
        reports: dict[int, NodeReport] = {}
        errors: list[Exception] = []

        async def wait(number: int, node: StartingNode, reference: Any) -> None:
            try:
                reports[number] = await self._report_of(node, reference)
            except Exception as error:  # noqa: BLE001  # raised again below: the task group would wrap it
                error.add_note(f"on the node {node.name!r} ({node.actor.host})")
                errors.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for number, (node, reference) in enumerate(asked):
                tasks.start_soon(wait, number, node, reference)
        # The loss of a node can cause the other errors, so it is raised first.
        for error in sorted(errors, key=lambda error: not isinstance(error, NodeLostError)):
            raise error
        return [reports[number] for number in sorted(reports)]

    async def _report_of(self, node: StartingNode, reference: Any) -> NodeReport:
        """Return the report of a node.

        Raises:
            NodeLostError: The node was lost; its running steps have been closed.
        """
        try:
            report: NodeReport = await answered_or_silent(node.actor, reference, self._silence)
        except (ActorDiedError, SilentError) as error:
            with anyio.CancelScope(shield=True):
                await node.actor.kill()
                what = "does not answer" if isinstance(error, SilentError) else "died"
                lost = NodeLostError(
                    f"the node {node.name!r} was lost: its process {node.actor.pid} on {node.actor.host} {what}"
                )
                await close_steps(self._bus, node.name, await self._steps_of(node), lost)
            raise lost from error
        return report

    async def _steps_of(self, node: StartingNode) -> Sequence[RecordedStep]:
        """Return the steps of a lost node."""
        steps: Sequence[RecordedStep] = recorded_steps(node.journal, self._identity.run)
        if not steps and self._hub is not None:
            with suppress(Exception), anyio.fail_after(_HUB_SECONDS):
                steps = await answer(self._hub.running_steps.remote(node.name))
        return steps


async def _journal_and_clock_offset(actor: Actor) -> tuple[Path, float | None]:
    """Return the path of a node's journal, and how far its clock is ahead, in seconds; None if that is tolerated."""
    sent_ns = now_ns()
    journal, clock_ns = await actor.call("journal_and_clock")
    return Path(journal), clock_offset_seconds(sent_ns, clock_ns, now_ns())
