"""Real Ray Serve LLM applications with real vLLM, unforked, with phasebus on them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from phasebus.telemetry.journal import JournalError, read_journal
from tests.support.programs import ROOT, free_port

SERVER = "phasebus.initializer.integrations.ray_serve.BusServer"
_CALLBACK = "phasebus.initializer.integrations.ray_serve.BusCallback"


@contextmanager
def local_serve() -> Iterator[int]:
    """Run a local Ray with Serve; yield its HTTP port."""
    import ray
    from ray import serve

    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()
    ray.shutdown()


def run_application(
    name: str,
    folder: Path,
    otlp: str,
    scaling: Mapping[str, float],
    *,
    callbacks: Sequence[str] = (),
    forkserver: str = "owned",
    **fields: Any,
) -> None:
    """Start an application at the route ``/NAME``; return once it runs.

    Args:
        name: Its name.
        folder: The folder of the journals of its replicas.
        otlp: The URL that its spans are exported to.
        scaling: Serve's options of its autoscaling; by default it has one replica.
        callbacks: The callbacks of phasebus.
        forkserver: Which fork server it uses; one that stays has its socket below `folder`.
        fields: Other fields of its LLMConfig.
    """
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    env_vars = {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "PHASEBUS_STATE_DIR": str(folder),
        "PHASEBUS_RUNTIME_DIR": str(folder / "runtime"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    config = LLMConfig(
        model_loading_config={"model_id": "tiny", "model_source": str(write_tiny_model(tiny_model_path()))},
        accelerator_type=None,
        placement_group_config={"bundles": [{"CPU": 1}], "strategy": "PACK"},
        deployment_config={
            "autoscaling_config": {"min_replicas": 1, "max_replicas": 2, **scaling},
            "ray_actor_options": {"num_cpus": 1},
        },
        engine_kwargs={
            "max_model_len": 256,
            "enforce_eager": True,
            "dtype": "bfloat16",
            "distributed_executor_backend": "mp",
        },
        callback_config={
            "callback_class": _CALLBACK,
            "callback_kwargs": {"callbacks": list(callbacks), "forkserver": forkserver},
        },
        runtime_env={"env_vars": env_vars},
        **fields,
    )
    serve.run(build_openai_app({"llm_configs": [config]}), name=name, route_prefix=f"/{name}")


def replica_journals(folder: Path) -> list[Path]:
    """Return the journals of the replicas, the first one first; a replica may have another one, of the application."""
    found = sorted(folder.glob("runs/*.jsonl"), key=lambda path: path.stat().st_ctime_ns)
    return [path for path in found if _node_of(path) not in ("serve", "")]


def _node_of(journal: Path) -> str:
    try:
        return read_journal(journal).node
    except JournalError:  # its first line is being written
        return ""
