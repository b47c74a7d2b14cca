"""The process that vLLM runs in: a Ray actor, in which vLLM is imported before there is a model."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import anyio
import psutil

from phasebus.initializer.engines.protocol import ENGINE_STEP, EngineError, ForkServerUse, Launch, Serving
from phasebus.initializer.engines.vllm.actor import EngineActor
from phasebus.initializer.engines.vllm.environment import environment_of_engine
from phasebus.initializer.engines.vllm.forking import importing_process
from phasebus.initializer.engines.vllm.import_steps import publish_imports
from phasebus.initializer.engines.vllm.inside.processes import START_PROCESS
from phasebus.initializer.engines.vllm.inside.variables import SAMPLING
from phasebus.initializer.engines.vllm.output import last_lines
from phasebus.initializer.ray.actors import Actor, start_actor
from phasebus.initializer.ray.placement import bundle_of
from phasebus.telemetry.history import cpu_seconds
from phasebus.telemetry.span_names import INNER_STEPS, LONGEST

logger = logging.getLogger("phasebus.engine")


@dataclass(frozen=True, slots=True)
class VLLMProcess:
    """A process with vLLM imported.

    Attributes:
        actor: The actor it is.
        made_for: The settings that cannot be changed once it runs.
    """

    actor: Actor
    made_for: Mapping[str, Any]

    @classmethod
    async def begin(cls, launch: Launch) -> Self:
        """Start a process, bind the port of its server, and import vLLM there; each is an engine step.

        Raises:
            EngineError: vLLM cannot be imported there, or the port cannot be bound.
        """
        async with launch.bus.step(ENGINE_STEP, START_PROCESS, attributes={"process": "front_end"}):
            made_for = _made_for(launch)  # asks Ray for the bundle, and starts the relay
            actor = await start_actor(
                EngineActor,
                str(launch.log),
                placement_group=launch.placement_group,
                bundle=launch.bundle,
                resources=made_for["resources"],
                runtime_env=made_for["runtime_env"],
            )
        try:
            if launch.serve is not None:
                await _listen(actor, launch.serve)
            forkserver = _forkserver(launch)
            environment = {**os.environ, **made_for["runtime_env"]["env_vars"]}
            importing_pid = (
                importing_process(environment) if forkserver in ("existing", "keep") else None
            ) or actor.pid
            own: Mapping[str, str | float] = (
                {"pid": importing_pid} if actor.host == platform.node() else {"host": actor.host}
            )
            attributes: dict[str, str | float] = {"process": "front_end", **own}
            before: dict[str, str | float] = {INNER_STEPS: LONGEST, **_cpu_seconds(own, "cpu_seconds_before")}
            async with launch.bus.step(ENGINE_STEP, "import_engine", attributes=attributes | before) as importing:
                since_ns = time.time_ns()
                engine, imports = await actor.call("load", forkserver)
                if engine != actor.pid:
                    actor.adopt(engine)
                elif importing_pid != actor.pid and "pid" in own:  # the server was of no use
                    attributes["pid"] = importing.attributes["pid"] = actor.pid
                    own = {}
                importing.attributes |= _cpu_seconds(own, "cpu_seconds")
                if "pid" in attributes:  # otherwise the times are of another clock
                    await publish_imports(
                        launch.bus, imports, step=importing.id, since_ns=since_ns, attributes=attributes
                    )
                    attributes["pid"] = engine
            if launch.serve is not None:
                async with launch.bus.step(ENGINE_STEP, "import_server", attributes=attributes) as importing:
                    importing.attributes |= await actor.call("load_server")
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await actor.kill()
            if isinstance(error, Exception) and not isinstance(error, EngineError):
                raise EngineError(f"vLLM cannot be imported: {error}{last_lines(launch.log)}") from error
            raise
        return cls(actor, made_for)

    def fits(self, launch: Launch) -> bool:
        """Return whether a new process for `launch` would have the same settings."""
        return self.made_for == _made_for(launch)

    async def close(self) -> None:
        """End it."""
        await self.actor.kill()


def _cpu_seconds(own: Mapping[str, str | float], name: str) -> dict[str, float]:
    """Return the CPU time that the engine's process has used, as the attribute `name`; {} if it runs elsewhere or is gone."""
    pid = own.get("pid")
    used = cpu_seconds(pid) if isinstance(pid, int) else None
    return {} if used is None else {name: round(used, 2)}


async def _listen(actor: Actor, serve: Serving) -> None:
    """Bind the port of the engine's server, and warn if it is another one than the wanted one."""
    port = await actor.call("listen", serve)
    if serve.port not in (0, port):
        logger.warning("port %d of %s is in use; the engine serves on port %d", serve.port, serve.host, port)


def _made_for(launch: Launch) -> Mapping[str, Any]:
    env = {
        **launch.runtime_env.get("env_vars", {}),
        **environment_of_processes(launch),
        **environment_of_engine(
            launch.telemetry,
            {**os.environ, **launch.runtime_env.get("env_vars", {}), **launch.env},
            traces_endpoint=launch.args.get("otlp_traces_endpoint"),
        ),
        SAMPLING: str(launch.iteration_sampling),
    }
    return {
        "group": launch.placement_group,
        "resources": _resources(launch),
        "forkserver": _forkserver(launch),
        "runtime_env": {**launch.runtime_env, "env_vars": env},
    }


def _forkserver(launch: Launch) -> ForkServerUse | None:
    """Return which fork server is used. The workers of an executor on Ray belong to the actor, so it is the front end."""
    if not launch.preload:
        return None
    on_ray = launch.args.get("distributed_executor_backend", "mp") != "mp"
    return "owned" if on_ray else launch.forkserver


def _resources(launch: Launch) -> Mapping[str, float]:
    """Return what this process occupies of its bundle: all, unless its workers are Ray actors that need the GPU there."""
    bundle = bundle_of(launch.placement_group, launch.bundle)
    if launch.args.get("distributed_executor_backend") == "ray":
        return {"CPU": bundle.get("CPU", 0)}
    return bundle


def environment_of_processes(launch: Launch) -> Mapping[str, str]:
    """Return the variables of vLLM's processes: the user's over our defaults.

    On the CPU, vLLM reserves nearly all of the memory for its cache unless VLLM_CPU_KVCACHE_SPACE is set.
    """
    defaults: dict[str, str] = {}
    if launch.local:
        defaults["HF_HUB_OFFLINE"] = "1"
    if not bundle_of(launch.placement_group, launch.bundle).get("GPU") and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        gibibytes = psutil.virtual_memory().total // 2**30
        defaults["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, min(16, gibibytes // 8)))
    return {**defaults, **launch.env}
