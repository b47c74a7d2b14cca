"""Actors: Ray processes that run code of phasebus."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
import psutil

from phasebus.initializer.ray.calls import answer
from phasebus.telemetry.descendants import descendants

_RAY_SECONDS = 5.0
"""How long Ray may take to end a process, in seconds."""


class Actor:
    """A running actor, and the processes that it has started.

    Args:
        handle: Ray's handle of the actor.
        host: The name of the machine it runs on.
        pid: Its process id there.
    """

    def __init__(self, handle: Any, host: str, pid: int) -> None:
        self.handle = handle
        self.host = host
        self.pid = pid
        self._process = None
        self._adopted: list[psutil.Process] = []
        if host == platform.node() and psutil.pid_exists(pid):
            self._process = psutil.Process(pid)

    def adopt(self, pid: int) -> None:
        """Count a process on the actor's machine, and all that it starts, as started by the actor."""
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                self._adopted.append(psutil.Process(pid))

    async def call(self, method: str, *args: Any) -> Any:
        """Call `method` of the actor and return its result; raises the errors of `answer`."""
        return await answer(getattr(self.handle, method).remote(*args))

    async def kill(self) -> None:
        """Kill the actor and, on this machine, every process that it has started."""
        await anyio.to_thread.run_sync(self._kill, self._family())

    async def close(self, method: str, seconds: float) -> None:
        """Call `method` of the actor to shut it down, for `seconds` at most; then kill the remaining processes."""
        processes = self._family()  # before the shutdown: afterwards, a process whose parent has ended is not found
        with suppress(Exception), anyio.move_on_after(seconds):
            await self.call(method)
        await anyio.to_thread.run_sync(self._kill, processes)

    def _family(self) -> list[psutil.Process]:
        family: list[psutil.Process] = []
        for process in [] if self._process is None else [self._process, *self._adopted]:
            with suppress(psutil.NoSuchProcess):
                family += [process, *descendants(process)]
        return family

    def _kill(self, processes: list[psutil.Process]) -> None:
        import ray

        ray.kill(self.handle)
        # `ray.kill` first: Ray reports a worker that ends without it as a crash
        psutil.wait_procs([each for each in processes if each == self._process], timeout=_RAY_SECONDS)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=_RAY_SECONDS)


async def end_actor(handle: Any) -> None:
    """Kill an actor; Ray does not restart it."""
    import ray

    await anyio.to_thread.run_sync(ray.kill, handle)


def here() -> str:
    """Return the id of the Ray node that this process runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def node_address() -> str:
    """Return the address at which other nodes reach this process's Ray node."""
    import ray

    return str(ray.util.get_node_ip_address())


async def start_actor(actor: type, *args: Any, **options: Any) -> Actor:
    """Start an actor of the class `actor`, constructed with `args`, and return it when its process answers.

    Args:
        actor: A class with a method ``where()`` that returns its host's name and its process id.
        args: The arguments of its constructor.
        options: As for `create_actor`.
    """
    handle = await create_actor(actor, *args, **options)
    try:
        host, pid = await answer(handle.where.remote())
    except BaseException:
        with anyio.CancelScope(shield=True):
            await end_actor(handle)
        raise
    return Actor(handle, host, pid)


async def create_actor(
    actor: type,
    *args: Any,
    placement_group: Any = None,
    bundle: int = 0,
    resources: Mapping[str, float],
    runtime_env: Mapping[str, Any],
    threads: int | None = None,
    node: str | None = None,
    restarts: int = 0,
) -> Any:
    """Create an actor of the class `actor`, constructed with `args`; return Ray's handle of it before it has started.

    Args:
        actor: The class.
        args: The arguments of its constructor.
        placement_group: The placement group it runs in; None leaves the placement to Ray.
        bundle: The index of its bundle in the group.
        resources: The resources it uses, of the bundle or of any node: CPU, GPU and others by name.
        runtime_env: Ray's runtime_env for it.
        threads: The number of calls it runs at once; None for one, or for many if it is asynchronous.
        node: The id of the Ray node it runs on, without a placement group.
        restarts: Maximum number of restarts by Ray after it dies; -1 for no limit.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

    others = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU", "memory")}
    options: dict[str, Any] = {
        "num_cpus": resources.get("CPU", 0),
        "num_gpus": resources.get("GPU", 0),
        "resources": others,
        "runtime_env": dict(runtime_env),
        "max_restarts": restarts,
    }
    if threads is not None:
        options["max_concurrency"] = threads
    if node is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
    if placement_group is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            placement_group, placement_group_bundle_index=bundle, placement_group_capture_child_tasks=True
        )
    return await anyio.to_thread.run_sync(lambda: ray.remote(actor).options(**options).remote(*args))
