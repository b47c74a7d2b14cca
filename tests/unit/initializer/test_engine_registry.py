"""Engines are found by their names, and answer for themselves what their arguments mean."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pytest
from click.testing import CliRunner

from phasebus.initializer import LLMConfig
from phasebus.initializer.cli import main
from phasebus.initializer.engines import registry
from phasebus.initializer.engines.none import NoEngine
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.registry import find_launcher
from phasebus.initializer.engines.vllm.launch import VLLM


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The entry points of other packages; a test may add to them."""
    entries: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    registry._installed.cache_clear()
    yield entries
    registry._installed.cache_clear()


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, registry.GROUP)


def test_built_in_engines_are_the_entry_points_of_phasebus() -> None:
    ours = {each.name: each.value for each in entry_points(group=registry.GROUP) if each.dist.name == "phasebus"}  # type: ignore[union-attr]
    assert ours == registry.BUILT_IN
    assert isinstance(find_launcher("vllm"), VLLM)
    assert isinstance(find_launcher("none"), NoEngine)


def test_unknown_engine_is_rejected_with_the_names_of_the_installed_ones(installed: list[EntryPoint]) -> None:
    installed.append(entry("other", "m:c"))
    with pytest.raises(EngineError, match="no engine 'vlm' is installed; there are 'none', 'other', 'vllm'"):
        find_launcher("vlm")
    with pytest.raises(ValueError, match="no engine 'vlm' is installed"):
        LLMConfig(model="m", engine="vlm")


def test_engine_that_cannot_be_imported_is_an_engine_error(installed: list[EntryPoint]) -> None:
    installed.append(entry("other", "no_such_module:Launcher"))
    with pytest.raises(EngineError, match="'other' cannot be imported from 'no_such_module:Launcher': ModuleNotFound"):
        find_launcher("other")


def test_two_packages_with_one_engine_name_are_an_error(installed: list[EntryPoint]) -> None:
    installed += [entry("other", "a:A"), entry("other", "b:B")]
    with pytest.raises(EngineError, match="two packages install an engine 'other': 'a:A' and 'b:B'"):
        find_launcher("other")


def test_built_in_engine_cannot_be_replaced(installed: list[EntryPoint]) -> None:
    installed.append(entry("none", "a:A"))
    assert isinstance(find_launcher("none"), NoEngine)


def test_command_lists_every_installed_engine(installed: list[EntryPoint]) -> None:
    installed.append(entry("other", "a:A"))
    listed = CliRunner().invoke(main, ["engines"], catch_exceptions=False).output.splitlines()
    assert [line.split()[0] for line in listed] == ["vllm", "none", "other"]
    assert "(a:A)" in listed[2]


@pytest.mark.parametrize(
    ("args", "workers"),
    [
        ({}, 1),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 3}, 6),
        ({"tensor_parallel_size": "2", "data_parallel_size": 2}, 4),
        ({"data_parallel_size": 8, "data_parallel_size_local": 2}, 2),
        ({"tensor_parallel_size": None, "prefill_context_parallel_size": 2}, 2),
    ],
)
def test_vllm_has_a_worker_for_each_rank_on_this_machine(args: dict[str, Any], workers: int) -> None:
    assert VLLM().workers(args) == workers


def test_parallel_size_that_is_no_number_is_rejected() -> None:
    with pytest.raises(EngineError, match="tensor_parallel_size is 'two', which is no number"):
        VLLM().workers({"tensor_parallel_size": "two"})


def test_vllm_spans_nodes_by_its_executor_on_ray_unless_configured_otherwise() -> None:
    args, env = VLLM().span_nodes({"max_model_len": 1}, {"A": "b"}, (2, 3))
    assert args == {"max_model_len": 1, "distributed_executor_backend": "ray"}
    assert env == {"A": "b", "VLLM_RAY_BUNDLE_INDICES": "2,3"}
    args, _ = VLLM().span_nodes({"distributed_executor_backend": "mine"}, {}, ())
    assert args == {"distributed_executor_backend": "mine"}
