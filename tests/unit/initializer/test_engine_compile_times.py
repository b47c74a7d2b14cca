"""The compilation of sources in a process: measured while it imports, and counted for what it has imported before."""

from __future__ import annotations

import importlib
import importlib.util
import os
import py_compile
import sys
import time
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from phasebus.initializer.engines.vllm.inside import compile_times, spans
from phasebus.initializer.engines.vllm.inside.compile_times import after_compilation, count_sources
from phasebus.initializer.engines.vllm.inside.import_times import ImportTimes
from phasebus.initializer.engines.vllm.inside.ranks import ProcessIdentity

SOURCE = "VALUE = 1\n"
PACKAGE = "package_without_bytecode"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """A package of four modules that have no bytecode and get none, in a folder from which they can be imported."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / PACKAGE).mkdir()
    paths = [tmp_path / PACKAGE / f"{name}.py" for name in ("__init__", "a", "b", "c")]
    for path in paths:
        path.write_text(SOURCE)
    yield paths
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def import_all() -> list[ModuleType]:
    return [importlib.import_module(name) for name in (PACKAGE, *(f"{PACKAGE}.{each}" for each in "abc"))]


def counted(modules: int) -> dict[str, int]:
    """Return the attributes for so many compiled ones of the four modules."""
    size = len(SOURCE)
    return {"compiled_modules": modules, "compiled_bytes": modules * size, "imported_bytes": 4 * size}


@pytest.fixture
def only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the count begin with the modules that a test imports: a test run has thousands, in an order of its own."""
    monkeypatch.setattr(compile_times, "inherited", compile_times.Inherited(last_module=list(sys.modules)[-1]))


@pytest.mark.usefixtures("sources")
def test_each_compilation_is_recorded_until_the_end() -> None:
    recorded: list[tuple[int, int]] = []
    end = after_compilation(lambda nanoseconds, size: recorded.append((nanoseconds, size)))
    try:
        modules = import_all()[:3]
    finally:
        end()
    importlib.reload(modules[0])
    assert [size for _, size in recorded] == [len(SOURCE)] * 4
    assert all(nanoseconds > 0 for nanoseconds, _ in recorded)
    assert modules[1].VALUE == 1
    assert "source_to_code" not in vars(SourceFileLoader)


@pytest.mark.usefixtures("sources")
def test_record_that_fails_leaves_the_import_alone() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("x")

    end = after_compilation(fail)
    try:
        assert import_all()[0].VALUE == 1
    finally:
        end()


def test_loader_that_another_library_has_changed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*_: object) -> None: ...

    monkeypatch.setattr(SourceFileLoader, "source_to_code", other, raising=False)
    after_compilation(lambda *_: None)()
    assert vars(SourceFileLoader)["source_to_code"] is other


def test_change_of_the_loader_by_another_library_outlives_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    end = after_compilation(lambda *_: None)
    ours = vars(SourceFileLoader)["source_to_code"]

    def other(self: SourceFileLoader, *args: Any) -> Any:
        return ours(self, *args)

    try:
        SourceFileLoader.source_to_code = other  # type: ignore[method-assign, assignment]
        end()
        assert vars(SourceFileLoader)["source_to_code"] is other
        assert SourceFileLoader("m", "m.py").source_to_code(b"", "m.py") is not None
    finally:
        del SourceFileLoader.source_to_code


@pytest.mark.usefixtures("sources")
def test_longest_imports_have_the_seconds_in_which_they_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_slowly(self: SourceFileLoader, data: Any, path: Any, **_: Any) -> Any:
        time.sleep(0.002)
        return compile(data, path, "exec", dont_inherit=True)

    monkeypatch.setattr("importlib._bootstrap_external.SourceLoader.source_to_code", compile_slowly)
    times = ImportTimes()
    with times.measuring():
        importlib.import_module(f"{PACKAGE}.a")
    assert sum(each["compile_seconds"] for each in times.longest()) >= 0.004  # the package's, and the module's
    assert "source_to_code" not in vars(SourceFileLoader)


@pytest.mark.usefixtures("only_these")
def test_modules_without_usable_bytecode_are_counted(sources: list[Path]) -> None:
    for path in sources[1:3]:
        cached = py_compile.compile(str(path), doraise=True)
        os.utime(str(cached), (1_000_000_000, 1_000_000_000))
    os.utime(sources[2], (1_100_000_000, 1_100_000_000))  # its bytecode is stale
    import_all()
    assert count_sources(time.time_ns()) == counted(3)


@pytest.mark.usefixtures("only_these")
def test_bytecode_that_is_newer_than_the_process_was_compiled_by_it(
    sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    since_ns = time.time_ns() - 10**9
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    import_all()
    assert count_sources(since_ns) == counted(4)
    assert count_sources(time.time_ns() + 10**9) == {}
    for path in sources:  # times of another clock
        later = time.time() + 10_000
        os.utime(importlib.util.cache_from_source(str(path)), (later, later))
    assert count_sources(since_ns) == {}


@pytest.mark.usefixtures("only_these", "sources")
def test_what_a_fork_has_from_its_server_is_not_counted() -> None:
    import_all()
    compile_times.inherited.note_fork()
    assert count_sources(time.time_ns()) == {}


@pytest.mark.usefixtures("only_these", "sources")
def test_sources_counted_before_a_fork_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = import_all()
    compile_times.inherited.count_before_fork(time.time_ns())
    for module in modules:
        monkeypatch.setattr(module, "__spec__", None)
    assert count_sources(time.time_ns()) == counted(4)


@pytest.mark.usefixtures("only_these", "sources")
def test_sources_imported_after_a_fork_are_added_to_those_before() -> None:
    importlib.import_module(f"{PACKAGE}.a")
    compile_times.inherited.count_before_fork(time.time_ns())
    import_all()
    assert count_sources(time.time_ns()) == counted(4)


@pytest.mark.usefixtures("only_these")
def test_counting_loads_no_lazy_module(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"{name} was read")

    monkeypatch.setitem(sys.modules, "phasebus_test_lazy", Lazy("phasebus_test_lazy"))
    monkeypatch.setitem(sys.modules, "phasebus_test_none", None)
    assert count_sources(time.time_ns()) == {}


def test_compilations_are_added_to_the_span_that_runs() -> None:
    class Reporter:
        def send(self, notice: Any) -> None: ...

    processor = spans.SpanReporter(Reporter(), ProcessIdentity("EngineCore"))  # type: ignore[arg-type]
    tracer = TracerProvider().get_tracer("test")
    processor.add_compilation(5, 5)  # outside of any
    with tracer.start_as_current_span("outer") as outer:
        processor.add_compilation(2_000_000_000, 100)
        with tracer.start_as_current_span("inner") as inner:
            processor.add_compilation(1_000_000_000, 50)
        processor.add_compilation(500_000_000, 10)
    found = [dict(each.attributes or {}) for each in (outer, inner)]  # type: ignore[attr-defined]
    assert found == [
        {"compile_seconds": 2.5, "compiled_modules": 2, "compiled_bytes": 110},
        {"compile_seconds": 1.0, "compiled_modules": 1, "compiled_bytes": 50},
    ]
