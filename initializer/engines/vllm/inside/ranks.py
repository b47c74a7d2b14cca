"""The name of each process of an engine, by its ranks: the names in vLLM's own log lines, such as ``Worker_DP0_TP1``.

Private seams: the functions that vLLM runs in its processes, and their arguments. Read from vLLM 0.32
(`WorkerProc.make_worker_process`, `CoreEngineProcManager`, `APIServerProcessManager`, `ray_utils.build_actor_name`).
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry import trace

FRONT_END: Final = "front_end"
"""The name of the process that runs the command, or the script."""

PROCESS_ATTRIBUTE: Final = "phasebus.process"
PID_ATTRIBUTE: Final = "phasebus.pid"
"""Attributes of every span: the resource has vLLM's name of the process, which all data parallel engines repeat, and in a
forked worker that of its parent."""

HOST: Final = "host"
"""The attribute with the name of the process's machine."""

_DATA_PARALLEL_CORE = re.compile(r"EngineCore_DP(\d+)$")
_DATA_PARALLEL = re.compile(r"_DP(\d+)$")
_RANK_OF_ACTOR = re.compile(r"(DP|PP|PCP|TP|DCP)(\d+)$")
_ORDER = ("DP", "PP", "PCP", "TP")
"""The order of ranks in a name, that of vLLM's log lines."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of an engine.

    Attributes:
        name: Its name, unique among the engine's processes.
        ranks: Its ranks: ``dp_rank``, ``pp_rank``, ``pcp_rank`` and ``tp_rank``, those that it has.
        serves: Whether it is one of several API servers, all of which have to listen before the engine is ready.
    """

    name: str
    ranks: Mapping[str, int] = field(default_factory=dict)
    serves: bool = False

    @property
    def attributes(self) -> dict[str, str | int | bool]:
        """The ranks and the machine, as attributes of the process's steps."""
        return {**self.ranks, HOST: platform.node()}


def identity_of(process: Any) -> ProcessIdentity | None:
    """Return the identity of a multiprocessing process; None if it is no process of vLLM's that loads our plugin.

    The process has its target and arguments in its parent until it has started, and in itself.
    """
    target = getattr(getattr(process, "_target", None), "__qualname__", "")
    identify = _BY_TARGET.get(target)
    if identify is None:
        return None
    try:
        return identify(process)
    except Exception:  # noqa: BLE001  # the arguments of a version that was not tried; the process has to start
        return ProcessIdentity(process.name)


def this_process() -> ProcessIdentity:
    """Return the identity of the process that calls this."""
    if (on_ray := ray_worker()) is not None:
        return on_ray
    return identity_of(multiprocessing.current_process()) or _named_by_vllm() or ProcessIdentity(FRONT_END)


def ray_worker() -> ProcessIdentity | None:
    """Return the identity of this process if it is a worker of vLLM's executor on Ray, by the name of its actor.

    Source: vllm/v1/executor/ray_utils.py (`build_actor_name`: ``vllm_Worker_INSTANCE_TP0_PP1``).
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    actor = ray.get_runtime_context().get_actor_name() or ""
    if not actor.startswith("vllm_Worker_"):
        return None
    found = [_RANK_OF_ACTOR.match(part) for part in actor.split("_")[3:]]
    return _worker({each[1]: int(each[2]) for each in found if each is not None})


def current_tracer_provider() -> trace.TracerProvider:
    """Return the tracer provider of this process, without loading the one that OTEL_PYTHON_TRACER_PROVIDER names.

    OpenTelemetry would load it, or raise if it is not installed, in place of the one that vLLM sets later.
    """
    named = os.environ.pop("OTEL_PYTHON_TRACER_PROVIDER", None)
    try:
        return trace.get_tracer_provider()
    finally:
        if named is not None:
            os.environ["OTEL_PYTHON_TRACER_PROVIDER"] = named


def _named_by_vllm() -> ProcessIdentity | None:
    """Return the identity that vLLM's tracer provider has; None without one. A core in a Ray actor has no other."""
    resource = getattr(current_tracer_provider(), "resource", None)
    name = "" if resource is None else str(resource.attributes.get("vllm.process_name") or "")
    rank = _DATA_PARALLEL.search(name)
    return ProcessIdentity(name, {} if rank is None else {"dp_rank": int(rank[1])}) if name else None


def _worker(ranks: Mapping[str, int]) -> ProcessIdentity:
    known = [kind for kind in _ORDER if kind in ranks]
    name = "_".join(["Worker", *(f"{kind}{ranks[kind]}" for kind in known)])
    return ProcessIdentity(name, {f"{kind.lower()}_rank": ranks[kind] for kind in known})


def _worker_process(process: Any) -> ProcessIdentity:
    """Return the identity of a worker: tensor parallel ranks change fastest, then prefill context, then pipeline."""
    arguments = process._kwargs  # noqa: SLF001
    parallel, rank = arguments["vllm_config"].parallel_config, int(arguments["rank"])
    sizes = {
        "TP": int(parallel.tensor_parallel_size),
        "PCP": int(getattr(parallel, "prefill_context_parallel_size", 1)),
        "PP": int(parallel.pipeline_parallel_size),
    }
    ranks = {}
    for kind, size in sizes.items():
        if size > 1:
            ranks[kind] = rank % size
        rank //= size
    # of a dense model, each data parallel engine is configured as if it were alone: only its core's name has the rank
    if (core := _DATA_PARALLEL_CORE.match(getattr(process, "_parent_name", ""))) is not None:
        ranks["DP"] = int(core[1])
    elif index := int(getattr(parallel, "data_parallel_index", 0)):
        ranks["DP"] = index
    return _worker(ranks)


def _engine_core(process: Any) -> ProcessIdentity:
    core = _DATA_PARALLEL_CORE.match(process.name)
    return ProcessIdentity(process.name, {} if core is None else {"dp_rank": int(core[1])})


def _api_server(process: Any) -> ProcessIdentity:
    return ProcessIdentity(process.name, serves=True)


_BY_TARGET: Final[Mapping[str, Callable[[Any], ProcessIdentity]]] = {
    "WorkerProc.worker_main": _worker_process,
    "EngineCoreProc.run_engine_core": _engine_core,
    "run_api_server_worker_proc": _api_server,
    "_run_vllm_dp_server": _api_server,
}
"""By the function that the process runs. vLLM's other processes (the coordinator of data parallel engines) load no plugins."""

TARGETS: Final = (
    ("vllm.v1.executor.multiproc_executor", "WorkerProc.worker_main"),
    ("vllm.v1.engine.core", "EngineCoreProc.run_engine_core"),
    ("vllm.v1.utils", "run_api_server_worker_proc"),
    ("vllm.entrypoints.launchers.dp_supervisor", "_run_vllm_dp_server"),
)
"""Where those functions are."""
