"""A command that a signal ends while a server holds its download: it prints the last line and is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.raw_server import Behaviour, raw_server, repeating
from tests.support.waiting import wait_until

BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


@pytest.mark.parametrize(
    ("behave", "model"),
    [
        (repeating(b"X", 0.05, b"HTTP/1.1 200 OK\r\nX-Long: "), "{url}/model.bin"),
        (repeating(b"HTTP/1.1 100 Continue\r\n\r\n", 0.01), "{url}/model.bin"),
        (repeating(b"x", 60, BODY), "{url}/model.bin"),
        (repeating(b"X", 0.05, b"HTTP/1.1 200 OK\r\nX-Long: "), "hf://org/name"),
    ],
    ids=["dribbled header", "interim responses", "a byte a minute", "listing of the hub"],
)
def test_ended_command_waits_for_no_server(behave: Behaviour, model: str, tmp_path: Path) -> None:
    with raw_server(behave) as server:
        config = tmp_path / "node.yaml"
        config.write_text(
            f"model: {model.format(url=server.url)}\nengine: none\nservice: {{port: null}}\n"
            "download: {stall_seconds: 3600, attempts: 1}\n"
        )
        environment = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), "PHASEBUS_CACHE_DIR": str(tmp_path)}
        with subprocess.Popen(
            [sys.executable, "-m", "phasebus.initializer.cli", "up", str(config), "--once"],
            env={**os.environ, **environment, "PHASEBUS_STATE_DIR": str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_until(lambda: bool(server.heads), "the request arrives")
            process.send_signal(signal.SIGTERM)
            _, printed = process.communicate(timeout=60)  # the server holds the connection for an hour
        assert process.returncode == 128 + signal.SIGTERM
        assert printed.rstrip().endswith("nothing of the start-up is left running")
