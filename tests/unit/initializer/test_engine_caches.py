from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from phasebus.initializer.engines.vllm.inside import caches


@pytest.fixture
def attributes() -> Iterator[Callable[[], dict[str, Any]]]:
    """Make a span the current one; return its attributes when called."""
    span = TracerProvider().get_tracer("test").start_span("step")
    with trace.use_span(span):
        assert isinstance(span, ReadableSpan)
        yield lambda: dict(span.attributes or {})


def replaced(path: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` as `report_caches` replaces the function at `path`."""
    made: list[Callable[..., Any]] = []
    caches.report_caches(lambda _, at, wrap: made.append(wrap(function)) if at == path else None)
    return made[0]


@pytest.mark.parametrize(("found", "outcome"), [(None, "miss"), ("model info", "hit")])
def test_the_inspection_of_a_model_is_recorded(
    attributes: Callable[[], dict[str, Any]], found: str | None, outcome: str, tmp_path: Path
) -> None:
    (tmp_path / "llama.json").touch()
    model = SimpleNamespace(_get_cache_dir=lambda: tmp_path, _get_cache_filename=lambda: "llama.json")
    load = replaced(caches.MODEL_INSPECTION[1], lambda *_: found)
    assert load(model, "0123456789abcdef") == found
    recorded = attributes()
    assert recorded["cache.model_inspection"] == outcome
    assert recorded["cache.model_inspection.factor.model_code"] == "0123456789"
    assert recorded.get("cache.model_inspection.present") is (True if outcome == "miss" else None)


@pytest.mark.parametrize("graphs", [["a", None, "b"], [None, "a"]])
def test_several_graphs_are_a_miss_if_one_is(attributes: Callable[[], dict[str, Any]], graphs: list[Any]) -> None:
    remaining = iter(graphs)
    load = replaced(caches.COMPILED_GRAPH[1], lambda *_: next(remaining))
    assert [load(None) for _ in graphs] == graphs
    assert attributes()["cache.compiled_graph"] == "miss"
    assert attributes()["cache.compiled_graph.misses"] == 1
    assert attributes()["cache.compiled_graph.hits"] == len(graphs) - 1


def test_an_odd_configuration_never_fails_the_load(attributes: Callable[[], dict[str, Any]]) -> None:
    assert replaced(caches.COMPILED_MODEL[1], lambda *_: "compiled")(object(), "/path") == "compiled"
    assert replaced(caches.MODEL_INSPECTION[1], lambda *_: "info")(object(), 3) == "info"


def test_an_error_of_the_load_reaches_its_caller() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("forced")

    with pytest.raises(RuntimeError, match="forced"):
        replaced(caches.COMPILED_MODEL[1], fail)(object(), "/path")


def test_a_use_outside_a_span_is_not_recorded() -> None:
    caches.record_use("inductor", hit=True)
    assert not trace.get_current_span().is_recording()


def test_inductor_is_recorded_by_its_counters(
    attributes: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([(0, 0), (1, 0), (1, 0), (1, 0), (1, 0), (1, 2)])
    monkeypatch.setattr(caches, "_inductor_counts", lambda: next(counts))
    compile_graph = replaced(caches.INDUCTOR[1], lambda: "graph")
    assert compile_graph() == "graph"
    assert attributes()["cache.inductor"] == "hit"
    compile_graph()
    assert attributes()["cache.inductor"] == "hit"
    compile_graph()
    assert attributes()["cache.inductor"] == "miss"


def test_a_compilation_inside_another_is_recorded_once(
    attributes: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([(0, 0), (0, 1)])
    monkeypatch.setattr(caches, "_inductor_counts", lambda: next(counts))
    made: list[Callable[..., Any]] = []
    made.append(replaced(caches.INDUCTOR[1], lambda deeper: made[0](False) if deeper else "graph"))
    assert made[0](True) == "graph"
    assert attributes()["cache.inductor.misses"] == 1


def test_triton_is_listened_to_unless_something_else_listens(attributes: Callable[[], dict[str, Any]]) -> None:
    knobs = ModuleType("triton.knobs")
    knobs.compilation = SimpleNamespace(listener=None)  # type: ignore[attr-defined]
    caches._listen_to_triton(knobs)
    knobs.compilation.listener(src=None, metadata={}, metadata_group={}, times=None, cache_hit=False)
    assert attributes()["cache.kernels"] == "miss"
    theirs = SimpleNamespace(listener=print)
    knobs.compilation = theirs  # type: ignore[attr-defined]
    caches._listen_to_triton(knobs)
    assert theirs.listener is print
    caches._listen_to_triton(ModuleType("triton.knobs"))  # an older Triton
