"""The containers of the manifests without a cluster: their user, read-only root, volumes, probes and end."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest

from tests.support.kubernetes import Manifest, node_file, pod_templates
from tests.support.pod_sandbox import running_container
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a container of another user")

WRITE_EVERYWHERE = """
for path in / /etc /etc/phasebus /models /usr /home; do touch "$path/x" 2>/dev/null && echo "wrote $path"; done
for path in "$HOME" /tmp /dev/shm "$XDG_CACHE_HOME/vllm" "$XDG_CONFIG_HOME/vllm" "$TRITON_HOME/.triton" "$NUMBA_CACHE_DIR" \
  "$FLASHINFER_WORKSPACE_BASE/.cache" "$TORCHINDUCTOR_CACHE_DIR" "$PHASEBUS_STATE_DIR" "$PHASEBUS_CACHE_DIR"; do
  mkdir -p "$path" && touch "$path/x" || echo "cannot write $path"
done
grep -q 'CapEff:.0000000000000000' /proc/self/status || echo "has capabilities"
gcc --version 2>/dev/null && echo "has a compiler"
python -c 'import getpass, os; print(os.getpid() > 1, os.getuid(), getpass.getuser())'
phasebus --version
"""

SERVER = """
import signal, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

stopping, finishing = threading.Event(), threading.Event()

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/stream":
            self.wfile.write(b"begun\\n")
            finishing.wait()
            self.wfile.write(b"completed\\n")
            threading.Thread(target=server.shutdown).start()
        elif self.path == "/finish" and stopping.is_set():
            finishing.set()

def stop(*_):
    stopping.set()

server = ThreadingHTTPServer(("127.0.0.1", 8000), Handler)
server.daemon_threads = False  # closing the server waits for its requests
signal.signal(signal.SIGTERM, stop)
server.serve_forever()
server.server_close()
"""
API = "http://127.0.0.1:8000"


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, Path]:
    """The volumes with a model, which is a folder with one file, and with the configuration of a node without an engine."""
    models, config = tmp_path / "volume", tmp_path / "config"
    (models / "Qwen2.5-0.5B-Instruct").mkdir(parents=True)
    (models / "Qwen2.5-0.5B-Instruct" / "config.json").write_text("{}")
    config.mkdir()
    path = node_file(config, "node/cpu")
    path.write_text(f"{path.read_text()}engine: none\n")
    return {"models": models, "config": config}


@pytest.mark.parametrize("folder", ["vllm/cpu", "node/cpu"])
def test_container_writes_to_its_volumes_and_nowhere_else(
    folder: str, volumes: dict[str, Path], tmp_path: Path
) -> None:
    pod = copy.deepcopy(pod_templates(folder)[0])
    (container,) = pod["spec"]["containers"]
    container["command"], container["args"] = ["sh", "-c", WRITE_EVERYWHERE], []
    with running_container(pod, volumes, {"POD_NAMESPACE": "team"}, tmp_path / "log") as sandbox:
        sandbox.process.wait(60)
    user, version = (tmp_path / "log").read_text().splitlines()  # and no other line
    assert user == "True 1000 phasebus"
    assert version.startswith("phasebus, version ")


def test_node_of_the_manifest_becomes_ready_and_ends_with_its_journal_written(
    volumes: dict[str, Path], tmp_path: Path
) -> None:
    pod: Manifest = pod_templates("node/cpu")[0]
    log = tmp_path / "log"
    with running_container(pod, volumes, {"POD_NAMESPACE": "team"}, log) as sandbox:

        def is_ready() -> bool:
            assert sandbox.process.poll() is None, log.read_text()
            return sandbox.get("http://127.0.0.1:9464/readyz")[0] == 200

        wait_until(is_ready, "the readiness probe succeeds", seconds=120)
        sandbox.main.terminate()
        assert sandbox.process.wait(pod["spec"]["terminationGracePeriodSeconds"]) == 0, log.read_text()
    (journal,) = (tmp_path / "runs").glob("**/*.jsonl")
    assert journal.stat().st_uid == pod["spec"]["securityContext"]["runAsUser"]


def test_request_that_runs_at_sigterm_is_completed_before_the_container_ends(
    volumes: dict[str, Path], tmp_path: Path
) -> None:
    pod = copy.deepcopy(pod_templates("vllm/cpu")[0])
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["phasebus", "run", "--"]
    container["args"] = ["python", "-c", SERVER]
    log = tmp_path / "log"
    with running_container(pod, volumes, {"POD_NAMESPACE": "team"}, log) as sandbox:

        def is_up() -> bool:
            assert sandbox.process.poll() is None, log.read_text()
            return sandbox.get(API)[0] == 200

        wait_until(is_up, "the server answers", seconds=120)
        request = sandbox.request(f"{API}/stream")
        assert request.stdout is not None
        assert [request.stdout.readline(), request.stdout.readline()] == ["200\n", "begun\n"]
        sandbox.main.terminate()
        readyz = "http://127.0.0.1:9464/readyz"
        wait_until(lambda: '"stopping"' in sandbox.get(readyz)[1], "it is not ready while the request runs")
        wait_until(lambda: sandbox.get(f"{API}/finish")[0] == 0 or request.poll() is not None, "the request ends")
        assert request.communicate(timeout=60)[0] == "completed\n"
        assert sandbox.process.wait(pod["spec"]["terminationGracePeriodSeconds"]) == 0, log.read_text()


def test_failed_start_of_the_manifest_writes_its_reason_for_kubernetes(
    volumes: dict[str, Path], tmp_path: Path
) -> None:
    (volumes["models"] / "Qwen2.5-0.5B-Instruct" / "config.json").unlink()
    (volumes["models"] / "Qwen2.5-0.5B-Instruct").rmdir()
    variables = {"POD_NAMESPACE": "team"}
    with running_container(pod_templates("node/cpu")[0], volumes, variables, tmp_path / "log") as sandbox:
        message = tmp_path / "termination-log"
        wait_until(lambda: message.read_text() != "", "the message is written", seconds=120)
        sandbox.main.terminate()  # it lingers for its scrapers
        assert sandbox.process.wait(60) == 1
    assert "there is no model at '/models/Qwen2.5-0.5B-Instruct'" in message.read_text()
