"""An engine core that is killed under `phasebus run --restart`: the command is forked again, and imports nothing twice."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from tests.faults.node.test_forkserver_killed import healthy
from tests.support.command import Command
from tests.support.programs import free_port
from tests.support.waiting import wait_until

pytest.importorskip("vllm")

_PLUGIN = """\
import os, sys

class Log:
    def find_spec(name, path=None, target=None):
        write(name)

def write(name):
    kind = open("/proc/self/comm").read().strip()
    with open(os.environ["IMPORT_LOG"], "a") as file:
        file.write(f"{kind}\\t{name}\\n")

def register():
    from phasebus.initializer.engines.vllm.inside.forkserver.kept.server import imported_modules
    if imported_modules and Log not in sys.meta_path:
        for name in sorted(set(sys.modules) - imported_modules):
            write(name)
        sys.meta_path.insert(0, Log)
"""


@pytest.mark.timeout(900)
def test_an_engine_whose_core_is_killed_is_forked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, port, log = Path(sys.prefix) / "bin", free_port(), tmp_path / "imports"
    _write_plugin(tmp_path / "plugin")
    command = Command(
        *("run", "--port=0", "--restart=on-failure:2", "--", str(folder / "vllm"), "serve"),
        *(str(write_tiny_model(tiny_model_path())), "--host=127.0.0.1", f"--port={port}"),
        *("--max-model-len=256", "--enforce-eager", "--dtype=bfloat16"),
        state=tmp_path,
        environment={
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
            "PATH": os.pathsep.join([str(folder), os.environ["PATH"]]),
            "PYTHONPATH": str(tmp_path / "plugin"),
            "IMPORT_LOG": str(log),
            "PHASEBUS_RUNTIME_DIR": str(tmp_path / "runtime"),
        },
    )
    try:
        wait_until(lambda: command.ended or healthy(port), "the server answers", seconds=400)
        first = _cores(command)
        psutil.Process(int(first[-1])).kill()
        wait_until(lambda: command.ended or "started again" in command.stderr, "the death is noticed")
        wait_until(lambda: command.ended or (len(_cores(command)) > len(first) and healthy(port)), "it answers again")
        assert not command.ended, command.stderr
        assert "executed" not in command.stderr, command.stderr
        server = psutil.Process(
            int(re.findall(r"APIServer pid=([0-9]+)", command.stdout + command.stderr)[-1])
        ).parent()
        assert server is not None
        assert server.cmdline()[0].startswith("phasebus kept fork server")
        command.send(signal.SIGTERM)
        assert command.wait() == 0
        wait_until(lambda: not server.is_running(), "the fork server ends with its owner")
        names = ("import_engine", "import_modules")
        imports = {step.id: step for step in command.journal().steps if step.name in names}
        nested = [(step, imports[step.parent]) for step in imports.values() if step.parent in imports]
        assert "torch" in {step.attributes["module"] for step, _ in nested}
        for step, outer in nested:
            assert outer.start_ns <= step.start_ns
            assert (step.end_ns or 0) <= (outer.end_ns or 0)
    finally:
        command.close()
    imported = sorted({tuple(line.split("\t")) for line in log.read_text().splitlines()})
    with capsys.disabled():
        print("\nModules that forks still import:", dict(Counter(kind for kind, _ in imported)))
        for kind, name in imported:
            print(f"  {kind}: {name}")
    assert not [name for _, name in imported if name in ("torch", "transformers", "vllm.v1.engine.core")]


def _cores(command: Command) -> list[str]:
    """Return the ids of the engine cores so far, each once, in their order."""
    return list(dict.fromkeys(re.findall(r"EngineCore pid=([0-9]+)", command.stdout + command.stderr)))


def _write_plugin(folder: Path) -> None:
    """Write a plugin of vLLM's that records which modules a fork imports."""
    described = folder / "import_log-1.dist-info"
    described.mkdir(parents=True)
    (folder / "import_log.py").write_text(_PLUGIN)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: import-log\nVersion: 1\n")
    (described / "entry_points.txt").write_text("[vllm.general_plugins]\nimport_log = import_log:register\n")
