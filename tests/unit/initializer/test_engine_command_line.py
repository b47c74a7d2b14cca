"""What is read from a vLLM command line, and the probe of the server that it starts."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from phasebus.initializer.engines.vllm.command_line import ServerCommand, plugin_environment, read_command


@pytest.mark.parametrize(
    ("command", "model", "url"),
    [
        ("vllm serve org/m", "org/m", "http://127.0.0.1:8000/health"),
        ("/opt/bin/vllm serve org/m --port 81 --host 0.0.0.0", "org/m", "http://127.0.0.1:81/health"),
        ("vllm serve org/m --port=81 --host=::1", "org/m", "http://[::1]:81/health"),
        ("vllm serve org/m --host :: --port 81 --port 82", "org/m", "http://[::1]:82/health"),
        ("vllm serve org/m --host 10.0.0.7 --ssl-certfile a --ssl_keyfile b", "org/m", "https://10.0.0.7:8000/health"),
        ("vllm serve org/m --served-model-name first second -tp 2", "first", "http://127.0.0.1:8000/health"),
        ("vllm serve org/m -tp 2 --served_model_name=one", "one", "http://127.0.0.1:8000/health"),
        ("vllm serve --model org/m", "org/m", "http://127.0.0.1:8000/health"),
        ("vllm serve --uds /tmp/s --model org/m", "org/m", "http://127.0.0.1:8000/health"),
        ("python -m vllm.entrypoints.openai.api_server --model org/m", "org/m", "http://127.0.0.1:8000/health"),
        ("env A=b uv run vllm serve org/m --port 0", "org/m", None),
        ("sh -c 'exec vllm serve org/m --port 81'", "org/m", "http://127.0.0.1:81/health"),
        ("vllm serve org/m --headless --nnodes 2", "org/m", None),
        ("vllm serve org/m --grpc", "org/m", None),
        ("vllm serve org/m --port $PORT", "org/m", None),
        ("vllm serve", "", "http://127.0.0.1:8000/health"),
    ],
)
def test_server_command_has_a_model_and_a_health_url(command: str, model: str, url: str | None) -> None:
    read = read_command(shlex.split(command))
    assert read is not None
    assert (read.model, read.health_url, read.headless) == (model, url, "--headless" in command)


@pytest.mark.parametrize(
    "command", ["python script.py", "vllm bench serve", "vllm --help", "sh -c 'vllm serve \"'", ""]
)
def test_other_commands_are_no_server(command: str) -> None:
    assert read_command(shlex.split(command)) is None


def test_options_of_a_configuration_file_yield_to_those_of_the_command(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("model: org/m\nport: 81\nserved_model_name: [one, two]\nhost: 127.0.0.2\nheadless: false\n")
    read = read_command(["vllm", "serve", "--config", str(config), "--port", "82"])
    assert read is not None
    assert (read.model, read.health_url, read.headless) == ("one", "http://127.0.0.2:82/health", False)
    missing = read_command(["vllm", "serve", "org/m", "--config", str(tmp_path / "none.yaml")])
    assert missing is not None
    assert missing.model == "org/m"


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


@pytest.mark.parametrize("content", [LAUGHS, "port: !!timestamp x\n", "port: " + "[\n" * 5000, "# " + "x" * 2_000_000])
def test_hostile_configuration_file_does_not_end_the_command(tmp_path: Path, content: str) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(content)
    read = read_command(["vllm", "serve", "org/m", "--config", str(config)])
    assert read is not None
    assert read.model == "org/m"


@pytest.mark.parametrize(
    ("plugins", "added"),
    [
        (None, {}),
        ("phasebus,other", {}),
        ("lora_filesystem_resolver", {"VLLM_PLUGINS": "lora_filesystem_resolver,phasebus"}),
        ("", {"VLLM_PLUGINS": "phasebus"}),
    ],
)
def test_plugin_is_added_to_a_list_that_excludes_it(plugins: str | None, added: dict[str, str]) -> None:
    assert plugin_environment({} if plugins is None else {"VLLM_PLUGINS": plugins}) == added


class _Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        assert self.path == "/health"
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.anyio
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (401, True), (404, False), (503, False)])
async def test_server_is_healthy_when_its_health_answers(
    port: int, status: int, healthy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Health, "status", status)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    read = read_command(["vllm", "serve", "m", f"--port={port}"])
    assert read is not None
    assert await read.is_healthy(60) is healthy


@pytest.mark.anyio
@pytest.mark.parametrize("command", ["vllm serve m --port 9", "vllm serve m --headless", "vllm serve m --uds /none"])
async def test_server_that_cannot_be_asked_is_not_healthy(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[ServerCommand] = []
    monkeypatch.setattr(ServerCommand, "_open_transport", opened.append)  # which imports HTTPX
    read = read_command(shlex.split(command))
    assert read is not None
    assert not await read.is_healthy()
    assert opened == []
