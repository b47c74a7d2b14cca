"""Ways to start an engine, each a process of its own, timed from its start to its first answer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

import httpx
import psutil

from phasebus.telemetry.journal import Run, read_journal
from tests.support.programs import free_port
from tests.support.waiting import wait_until

ENGINE_ARGS = {"max_model_len": 256, "enforce_eager": True, "dtype": "bfloat16"}
BIN = Path(sys.executable).parent
_PHASEBUS = [sys.executable, "-m", "phasebus.initializer.cli"]
_RUN = [*_PHASEBUS, "run", "--port=0", "--"]
_RUNS = "serve.run is called"
_VLLM_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}


def phasebus_up(model: str, *, environment: Mapping[str, str] | None = None, **config: Any) -> tuple[float, Run]:
    """Return the seconds that `phasebus up` takes from its start to its first generated text, and its journal."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "node.yaml"
        described = {"model": model, "engine_args": ENGINE_ARGS, "service": {"port": 0}} | config
        described["engine_env"] = {"VLLM_CPU_KVCACHE_SPACE": "1"} | config.get("engine_env", {})
        path.write_text(json.dumps(described))  # JSON is YAML
        began = time.monotonic()
        command = [sys.executable, "-m", "phasebus.initializer.cli", "up", str(path), "--once", "--prompt", "A"]
        with _running(command, {"PHASEBUS_STATE_DIR": folder, **(environment or {})}) as (_, output):
            wait_until(lambda: "\ntext " in output(), "phasebus up prints a text", seconds=600)
            seconds = time.monotonic() - began
            (journal,) = Path(folder).glob("runs/*.jsonl")
            return seconds, read_journal(journal)


def vllm_serve(
    model: str, *, observed: bool = False, empty_caches: bool = False, environment: Mapping[str, str] | None = None
) -> tuple[float, int]:
    """Return the seconds that `vllm serve` takes from its start to its first completion, and its memory then, in bytes.

    Args:
        model: The folder of the model.
        observed: Whether it runs under `phasebus run`.
        empty_caches: Whether vLLM finds no file in its caches, as in a fresh container.
        environment: More variables.
    """
    with TemporaryDirectory() as folder:
        caches = {"VLLM_CACHE_ROOT": str(Path(folder, "cache"))} if empty_caches else {}
        prefix = _RUN if observed else []
        began = time.monotonic()
        with _serving(model, prefix, {"PHASEBUS_STATE_DIR": folder, **caches, **(environment or {})}) as serving:
            return time.monotonic() - began, proportional_bytes(serving.pid)


def vllm_serves(model: str, number: int, *, environment: Mapping[str, str]) -> float:
    """Return the seconds that several `phasebus run -- vllm serve` take at once, until each has completed a prompt.

    Args:
        model: The folder of the model.
        number: How many.
        environment: More variables.
    """
    with TemporaryDirectory() as folder, ExitStack() as running:
        began = time.monotonic()
        with ThreadPoolExecutor(number) as threads:
            variables = {"PHASEBUS_STATE_DIR": folder, **environment}
            each = [_serving(model, [*_RUN[:-1], "--forkserver=keep", "--"], variables) for _ in range(number)]
            list(threads.map(running.enter_context, each))
        return time.monotonic() - began


def proportional_bytes(process: int) -> int:
    """Return the memory of a process and of all that it has started, with shared pages in equal parts (PSS)."""
    family = psutil.Process(process)
    return sum(each.memory_full_info().pss for each in (family, *family.children(recursive=True)))


@contextmanager
def kept_fork_server(*, start: bool = True) -> Iterator[Mapping[str, str]]:
    """Give the environment in which `phasebus run` finds a fork server that stays, or with `start` false leaves one behind."""
    with TemporaryDirectory() as folder:
        found = {"PHASEBUS_RUNTIME_DIR": folder}
        environment = {**os.environ, **_VLLM_ENVIRONMENT, **found}
        if start:
            subprocess.run([*_PHASEBUS, "forkserver", "start"], env=environment, check=True, capture_output=True)
        try:
            yield found
        finally:
            subprocess.run([*_PHASEBUS, "forkserver", "stop"], env=environment, check=True, capture_output=True)


def restarted_vllm_serve(model: str) -> tuple[float, float]:
    """Return the seconds to the first completion: from the start, and from a SIGKILL of the engine core."""
    with TemporaryDirectory() as folder:
        environment = {"PHASEBUS_STATE_DIR": folder, "PHASEBUS_RUNTIME_DIR": str(Path(folder, "runtime"))}
        began = time.monotonic()
        with _serving(model, [*_RUN[:-1], "--restart=on-failure", "--"], environment) as serving:
            seconds = time.monotonic() - began
            (core,) = re.findall(r"EngineCore pid=([0-9]+)", serving.output())[-1:]
            began = time.monotonic()
            os.kill(int(core), signal.SIGKILL)
            wait_until(lambda: "started again" in serving.output(), "the engine's death is noticed")
            _first_completion(serving.url, model, serving.output)
            return seconds, time.monotonic() - began


@dataclass(frozen=True)
class _Serving:
    """A server that answers: its process, its address, and what returns all that it has printed."""

    pid: int
    url: str
    output: Callable[[], str]


@contextmanager
def _serving(model: str, prefix: list[str], environment: Mapping[str, str]) -> Iterator[_Serving]:
    """Run `vllm serve` behind `prefix`, from its first completion on."""
    port = free_port()
    options = ["--max-model-len=256", "--enforce-eager", "--dtype=bfloat16", "--host=127.0.0.1", f"--port={port}"]
    command = [*prefix, str(BIN / "vllm"), "serve", model, *options]
    with _running(command, {**_VLLM_ENVIRONMENT, **environment}) as (pid, output):
        _first_completion(f"http://127.0.0.1:{port}", model, output)
        yield _Serving(pid, f"http://127.0.0.1:{port}", output)


def ray_serve_llm(model: str, *, observed: bool = False) -> float:
    """Return the seconds that a Ray Serve LLM application takes from `serve.run` to its first completion.

    Args:
        model: The folder of the model.
        observed: Whether its server is `BusServer`.
    """
    port = free_port()
    command = [sys.executable, "-m", __name__, model, str(port), *(["observed"] if observed else [])]
    with TemporaryDirectory() as folder:
        variables = {"HF_HUB_OFFLINE": "1", "PHASEBUS_STATE_DIR": folder}
        with _running(command, variables) as (_, output):
            wait_until(lambda: _RUNS in output(), "serve.run is called", seconds=600)
            began = time.monotonic()
            _first_completion(f"http://127.0.0.1:{port}", "tiny", output)
            return time.monotonic() - began


def _first_completion(url: str, model: str, output: Callable[[], str]) -> None:
    body = {"model": model, "prompt": "A start-up is", "max_tokens": 4}

    def answered() -> bool:
        output()
        try:
            return httpx.post(f"{url}/v1/completions", json=body, timeout=60).is_success
        except httpx.TransportError:
            return False

    wait_until(answered, f"{url} completes a prompt", seconds=600)


@contextmanager
def _running(command: list[str], environment: Mapping[str, str]) -> Iterator[tuple[int, Callable[[], str]]]:
    """Run a command; give its process id, and what returns all that it has printed, and fails with that if it has failed."""
    with NamedTemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})

        def output() -> str:
            printed = Path(log.name).read_text(errors="replace")
            assert not process.poll(), printed
            return printed

        try:
            yield process.pid, output
        finally:
            process.terminate()
            process.wait(120)


def _serve(model: str, port: int, *, observed: bool) -> None:
    """Run a Ray Serve LLM application until this process is terminated."""
    import signal
    import threading

    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    parts = "phasebus.initializer.integrations.ray_serve"
    bus = {"callback_config": {"callback_class": f"{parts}.BusCallback"}, "server_cls": f"{parts}.BusServer"}
    config = LLMConfig(
        model_loading_config={"model_id": "tiny", "model_source": model},
        accelerator_type=None,
        placement_group_config={"bundles": [{"CPU": 1}], "strategy": "PACK"},
        deployment_config={"num_replicas": 1, "ray_actor_options": {"num_cpus": 1}},
        engine_kwargs={**ENGINE_ARGS, "distributed_executor_backend": "mp"},
        runtime_env={"env_vars": {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}},
        **(bus if observed else {}),
    )
    print(_RUNS, flush=True)
    serve.run(build_openai_app({"llm_configs": [config]}), blocking=False)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), observed="observed" in sys.argv[3:])
