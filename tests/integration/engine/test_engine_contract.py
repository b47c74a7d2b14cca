"""The private parts of vLLM that phasebus uses are in the vLLM that is installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from phasebus.initializer.engines.vllm.inside.forkserver.imported import READ_WHEN_LOADED
from phasebus.initializer.engines.vllm.inside.forkserver.patches import STARTING_PROCESSES
from phasebus.initializer.engines.vllm.names import STEP_OF_FUNCTION, STEP_OF_SPAN
from phasebus.initializer.engines.vllm.seams import SEAMS, missing_seams

LOOK = """
import inspect
from phasebus.initializer.engines.vllm.inside import hooks
from phasebus.initializer.engines.vllm.seams import SEAMS
from phasebus.initializer.engines.vllm.server_arguments import import_first
missing = []
for seam in SEAMS:
    found = hooks.resolved(import_first((seam.module, *seam.elsewhere)), seam.path)
    if found is None or not (inspect.ismodule(found[2]) or callable(getattr(found[2], "__func__", found[2]))):
        missing.append(str(seam))
assert missing == []
from phasebus.initializer.engines.vllm.inside.ranks import TARGETS, _BY_TARGET
assert {path for _, path in TARGETS} == set(_BY_TARGET)
from vllm.v1.executor.multiproc_executor import WorkerProc
from vllm.v1.engine.core import EngineCoreProc
assert WorkerProc.worker_main.__qualname__ == "WorkerProc.worker_main"
assert EngineCoreProc.run_engine_core.__qualname__ == "EngineCoreProc.run_engine_core"
made = inspect.getsource(WorkerProc.make_worker_process)
assert all(words in made for words in ('"vllm_config": vllm_config', '"rank": rank', "kwargs=process_kwargs")), made
"""

ARGUMENTS = """
from dataclasses import fields
from vllm import AsyncEngineArgs
from phasebus.initializer.engines.vllm.arguments import known_arguments
assert known_arguments() == {field.name for field in fields(AsyncEngineArgs) if field.init}
"""


OF_VLLM = [seam for seam in SEAMS if seam.module.partition(".")[0] == "vllm"]


def test_no_seam_is_missing_in_the_source_of_the_installed_vllm() -> None:
    assert missing_seams() == []


def test_all_seams_are_missing_where_there_is_no_vllm(tmp_path: Path) -> None:
    assert missing_seams(tmp_path) == OF_VLLM


def test_seam_that_a_version_lacks_is_found_missing(tmp_path: Path) -> None:
    tracing = tmp_path / "tracing"
    tracing.mkdir()
    (tracing / "__init__.py").write_text("def instrument(): ...\n")
    (tracing / "otel.py").write_text(
        "try:\n    from opentelemetry.sdk.trace import TracerProvider\nexcept ImportError: ...\n"
    )
    there = set(OF_VLLM) - set(missing_seams(tmp_path))
    assert {str(seam) for seam in there} == {"vllm.tracing:instrument", "vllm.tracing.otel:TracerProvider"}


def test_seams_and_process_arguments_are_those_of_the_imported_vllm() -> None:
    looked = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False, timeout=300)
    assert looked.returncode == 0, looked.stderr


def test_no_other_module_starts_processes_that_way() -> None:
    asking = {
        ".".join(path.relative_to(source()).with_suffix("").parts)
        for path in source().rglob("*.py")
        if re.search(r"import .*get_mp_context|^    get_mp_context,$", path.read_text(), re.MULTILINE)
    }
    assert {f"vllm.{module}" for module in asking} == set(STARTING_PROCESSES)


def test_each_variable_that_a_module_of_vllm_reads_when_imported_is_known() -> None:
    statement = re.compile(
        r"^(?:if|elif|\w+(?:: [^=\n]+)? =) .*?(?:\benvs\.|os\.(?:environ|getenv)\W+(?:get\W+)?)([A-Z]\w+)", re.MULTILINE
    )
    read = {
        name
        for path in source().rglob("*.py")
        if path.name != "envs.py"
        for name in statement.findall(path.read_text())
    }
    assert "VLLM_BATCH_INVARIANT" in read
    assert {name for name in read if not name.startswith(READ_WHEN_LOADED)} == set()


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
