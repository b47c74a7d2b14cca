"""The steps for work of vLLM's processes that no function of its own encloses: imports, and parsing the command line."""

from __future__ import annotations

import importlib
import sys
import time
import uuid
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import wrapt
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from phasebus.initializer.engines.vllm.inside import imports, spans
from phasebus.initializer.engines.vllm.inside.processes import report_child_processes
from phasebus.initializer.engines.vllm.inside.ranks import ProcessIdentity


@pytest.fixture
def traced_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module whose import is a step; a new one each time, as wrapt 1.14 calls hooks for a name only once."""
    name = f"phasebus_test_imported_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text("import time\nBEGAN_NS = time.time_ns()\n")
    wrapt.register_post_import_hook(lambda _: None, "phasebus_test_never_imported")  # its finder is there from now on
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(imports, "IMPORTED_LATER", {name})
    return name


def test_module_that_is_imported_later_has_a_span_from_the_begin_of_its_import(
    traced_module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int, int, dict[str, str]]] = []
    tracing: Any = SimpleNamespace(instrument_manual=lambda *span: made.append(span))
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.tracing", tracing)
    imports.trace_imports()
    asked_ns = time.time_ns()
    module = importlib.import_module(traced_module)
    importlib.import_module(traced_module)
    ((name, began_ns, ended_ns, attributes),) = made
    assert (name, attributes) == ("import_modules", {"module": traced_module})
    assert asked_ns <= began_ns <= module.BEGAN_NS <= ended_ns
    del sys.modules[traced_module]


@pytest.mark.parametrize(("span", "steps"), [("Executor init", 1), ("Worker init", 0)])
def test_module_of_the_executor_has_a_span_only_inside_its_step(
    span: str, steps: int, traced_module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.tracing", SimpleNamespace(instrument_manual=lambda *each: made.append(each)))
    monkeypatch.setattr(imports, "_ONLY_INSIDE", {traced_module: "Executor init"})
    imports.trace_imports()
    with TracerProvider().get_tracer("test").start_as_current_span(span):
        importlib.import_module(traced_module)
    assert len(made) == steps
    del sys.modules[traced_module]


def test_module_that_is_there_when_the_plugin_starts_has_no_step(
    traced_module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.tracing", SimpleNamespace(instrument_manual=made.append))
    monkeypatch.setitem(sys.modules, traced_module, ModuleType(traced_module))
    imports.trace_imports()
    assert made == []


def test_span_until_the_next_one_ends_when_that_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{'a' * 32}-{'b' * 16}-01")
    provider, exporter, sent = TracerProvider(), InMemorySpanExporter(), list[Any]()
    reporter: Any = SimpleNamespace(send=sent.append)
    processor = spans.SpanReporter(reporter, ProcessIdentity("front_end"))
    provider.add_span_processor(processor)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    processor.begin_until_next("parse_command_line")
    provider.get_tracer("vllm").start_span("API server setup").end()
    provider.get_tracer("vllm").start_span("Load model").end()
    first, second, _ = exporter.get_finished_spans()
    assert (first.name, first.end_time) == ("parse_command_line", second.start_time)
    assert first.parent is not None
    assert first.parent.span_id == 0xBBBBBBBBBBBBBBBB
    assert [(each["event"], each["name"]) for each in sent[:3]] == [
        ("started", "parse_command_line"),
        ("ended", "parse_command_line"),
        ("started", "API server setup"),
    ]


def test_process_that_waited_for_the_fork_server_has_a_step_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing.process import BaseProcess

    from phasebus.initializer.engines.vllm.inside import processes

    sent: list[Any] = []

    def start(self: Any) -> None:
        self._popen = SimpleNamespace(waited_ns=(5, 9))
        self.pid = 7

    monkeypatch.setattr(BaseProcess, "start", start)
    monkeypatch.setattr(processes, "identity_of", lambda _: ProcessIdentity("EngineCore"))
    monkeypatch.setattr(processes, "_report_exit", lambda *_: None)
    reporter: Any = SimpleNamespace(send=sent.append)
    report_child_processes(reporter)
    process: Any = SimpleNamespace()
    BaseProcess.start(process)
    started, waited = sent
    assert (started["name"], started["event"]) == ("start_process", "started")
    assert (waited["name"], waited["event"], waited["process"]) == ("wait_for_fork_server", "ended", "EngineCore")
    assert (waited["began_ns"], waited["time_ns"], waited["parent"]) == (5, 9, started["step"])
    assert waited["step"] != started["step"]


@pytest.mark.parametrize(("modules", "by_server"), [(7, 0.0), (0, 1.5), (0, 0.0)])
def test_end_of_the_start_of_a_process_has_what_was_compiled(
    modules: int, by_server: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phasebus.initializer.engines.vllm.inside import processes

    monkeypatch.setattr(processes, "_starter_reports", False)
    monkeypatch.setattr(processes, "count_sources", lambda _: {"compiled_modules": modules} if modules else {})
    monkeypatch.setattr(processes, "inherited", SimpleNamespace(compile_seconds=by_server))
    sent: list[Any] = []
    reporter: Any = SimpleNamespace(send=sent.append)
    processes.report_process_start(reporter, ProcessIdentity("EngineCore"), time.time_ns())
    _, imported, ended = (each["attributes"] for each in sent)
    assert imported.get("compiled_modules") == (modules or None)
    assert ended.get("fork_server_compile_seconds") == (by_server or None)
    assert "compiled_modules" not in ended


def test_end_of_the_start_of_a_process_has_its_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from phasebus.initializer.engines.vllm.inside import processes

    monkeypatch.setattr(processes, "_starter_reports", False)
    monkeypatch.setattr(time, "process_time", lambda: 12.5)
    sent: list[Any] = []
    reporter: Any = SimpleNamespace(send=sent.append)
    processes.report_process_start(reporter, ProcessIdentity("EngineCore"), time.time_ns())
    begun, imported, ended = sent
    assert "cpu_seconds" not in begun["attributes"]
    assert (imported["name"], imported["attributes"]["cpu_seconds"]) == ("import_engine", 12.5)
    assert (ended["name"], ended["attributes"]["cpu_seconds"]) == ("start_process", 12.5)
