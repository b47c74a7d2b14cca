"""Actors: a process of Ray's in which something of ours runs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread
import psutil

from phasebus.initializer.ray.calls import answer


class Actor:
    """A running actor, and the processes it has started.

    Args:
        handle: Ray's handle of it.
        host: The name of the machine it runs on.
        pid: Its process id there.
    """

    def __init__(self, handle: Any, host: str, pid: int) -> None:
        self.handle = handle
        self._process = None
        if host == platform.node() and psutil.pid_exists(pid):
            self._process = psutil.Process(pid)

    async def call(self, method: str, *args: Any) -> Any:
        """Return what `method` of the actor returns; see `answer` for what is raised."""
        return await answer(getattr(self.handle, method).remote(*args))

    async def kill(self) -> None:
        """End the actor and, on this machine, every process it has started, at once."""
        await anyio.to_thread.run_sync(self._kill)

    def _kill(self) -> None:
        import ray

        processes = [] if self._process is None else _family(self._process)
        ray.kill(self.handle)
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=5)


async def start_actor(
    actor: type,
    *args: Any,
    placement_group: Any = None,
    resources: Mapping[str, float],
    runtime_env: Mapping[str, Any],
) -> Actor:
    """Return an actor of the class `actor`, made with `args`, once its process answers.

    Args:
        actor: A class with a method ``where()`` that returns its host's name and its process id.
        args: What it is made with.
        placement_group: Where it runs; None leaves that to Ray.
        resources: What it occupies of the first bundle, or of any node: CPU, GPU and others by name.
        runtime_env: Ray's runtime_env for it.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    others = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU", "memory")}
    options: dict[str, Any] = {
        "num_cpus": resources.get("CPU", 0),
        "num_gpus": resources.get("GPU", 0),
        "resources": others,
        "runtime_env": dict(runtime_env),
        "max_restarts": 0,
    }
    if placement_group is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            placement_group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )
    handle = await anyio.to_thread.run_sync(lambda: ray.remote(actor).options(**options).remote(*args))
    try:
        host, pid = await answer(handle.where.remote())
    except BaseException:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(ray.kill, handle)
        raise
    return Actor(handle, host, pid)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
