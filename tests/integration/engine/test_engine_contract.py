"""What is read from vLLM's inside is there in the vLLM that is installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from phasebus.initializer.engines.vllm.inside import forkserver
from phasebus.initializer.engines.vllm.names import STEP_OF_FUNCTION, STEP_OF_SPAN

LOOK = """
import importlib, inspect, sys
from phasebus.initializer.engines.vllm.inside import forkserver, hooks
missing = []
for module, path in [(module, path) for module, path, _ in hooks.UNTRACED_FUNCTIONS] + [hooks.LOADER, hooks.STAT_LOGGERS]:
    found = hooks.resolved(importlib.import_module(module), path)
    if found is None or not inspect.isfunction(found[2]):
        missing.append(f"{module}:{path}")
for module in forkserver.STARTING_PROCESSES:
    if not callable(getattr(importlib.import_module(module), "get_mp_context", None)):
        missing.append(f"{module}:get_mp_context")
sys.exit(f"not in this vLLM: {missing}" if missing else 0)
"""

ARGUMENTS = """
from dataclasses import fields
from vllm import AsyncEngineArgs
from phasebus.initializer.engines.vllm.arguments import known_arguments
assert known_arguments() == {field.name for field in fields(AsyncEngineArgs) if field.init}
"""


def test_everything_that_is_wrapped_inside_vllm_is_there() -> None:
    looked = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False, timeout=300)
    assert looked.returncode == 0, looked.stderr


def test_no_other_module_starts_processes_that_way() -> None:
    asking = {
        ".".join(path.relative_to(source()).with_suffix("").parts)
        for path in source().rglob("*.py")
        if re.search(r"import .*get_mp_context|^    get_mp_context,$", path.read_text(), re.MULTILINE)
    }
    assert {f"vllm.{module}" for module in asking} == set(forkserver.STARTING_PROCESSES)


def test_the_table_knows_every_span_of_vllm_s_start_up() -> None:
    spans = {
        name
        for path in source().rglob("*.py")
        for name in re.findall(r'@instrument\(span_name="([^"]+)"\)', path.read_text())
    }
    assert spans - {"Worker init"} == set(STEP_OF_SPAN)
    assert set(STEP_OF_FUNCTION) == {"WorkerProc.__init__", "WorkerWrapperBase.init_worker"}


def test_vllm_finds_the_plugin() -> None:
    (ours,) = [each for each in entry_points(group="vllm.general_plugins") if each.name == "phasebus"]
    assert callable(ours.load())


def source() -> Path:
    """Return the folder of vLLM's source; importing it would take seconds, and change this process."""
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def test_the_engine_arguments_are_those_that_its_source_names() -> None:
    looked = subprocess.run([sys.executable, "-c", ARGUMENTS], capture_output=True, text=True, check=False, timeout=300)
    assert looked.returncode == 0, looked.stderr
