"""A fork server that is killed while `vllm serve` starts: the start goes on by itself."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import httpx
import pytest

from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from tests.support.command import Command
from tests.support.programs import free_port
from tests.support.waiting import wait_until

pytest.importorskip("vllm")

SERVER = "phasebus fork server"


@pytest.mark.timeout(900)
def test_a_start_whose_fork_server_is_killed_goes_on_with_spawned_processes(tmp_path: Path) -> None:
    folder, port = Path(sys.prefix) / "bin", free_port()
    command = Command(
        *("run", "-v", "--port=0", "--", str(folder / "vllm"), "serve", str(write_tiny_model(tiny_model_path()))),
        *("--host=127.0.0.1", f"--port={port}", "--max-model-len=256", "--enforce-eager", "--dtype=bfloat16"),
        state=tmp_path,
        environment={
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
            "PATH": os.pathsep.join([str(folder), os.environ["PATH"]]),
        },
    )
    try:
        wait_until(lambda: command.ended or SERVER in command.processes(), "there is a fork server", seconds=300)
        assert not command.ended, command.stderr
        command.processes()[SERVER].send_signal(signal.SIGKILL)
        wait_until(lambda: command.ended or healthy(port), "the server answers", seconds=400)
        assert not command.ended, command.stderr
        command.send(signal.SIGTERM)
        assert command.wait() == 0
        assert command.left_behind() == []
        # that of the first process: the inspection of the model's class, if vLLM has not seen it before
        assert command.stderr.count(" is spawned, not forked: the fork server") == 1
    finally:
        command.close()


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=30).is_success
    except httpx.TransportError:
        return False
