"""The three examples and the two tests that the project began with, as they stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from phasebus.bus import CallbackRunner
from phasebus.initializer import LLMConfig, initialize_node

pytestmark = pytest.mark.anyio


async def test_callbacks_run_in_order_and_see_what_earlier_ones_returned() -> None:
    calls = []

    def cb1(phase: str, config: Any, data: Any) -> dict[str, Any]:
        calls.append("cb1")
        return {"key1": "value1"}

    def cb2(phase: str, config: Any, data: Any) -> dict[str, Any]:
        calls.append("cb2")
        assert data["key1"] == "value1"
        return {"key2": "value2"}

    runner = CallbackRunner([cb1, cb2])
    result = await runner.run("test", config={})
    assert calls == ["cb1", "cb2"]
    assert result == {"key1": "value1", "key2": "value2"}


async def test_async_and_sync_callbacks_mix() -> None:
    async def cb1(phase: str, config: Any, data: Any) -> dict[str, Any]:
        return {"a": 1}

    def cb2(phase: str, config: Any, data: Any) -> dict[str, Any]:
        return {"b": data["a"] + 1}

    runner = CallbackRunner([cb1, cb2])
    result = await runner.run("test", config={})
    assert result == {"a": 1, "b": 2}


async def test_change_one_thing(model: Path) -> None:
    def custom_download(phase, config, data):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, RET503
        if phase == "pre_download":
            return {"local_node_download_model": "NONE"}

    config = LLMConfig(model="no/such/model", engine="none", callbacks=[custom_download])
    async with await initialize_node(config) as node:
        assert node.context["download_result"] is None
        (_, change) = node.context.history("local_node_download_model")
        assert (change.by, change.value) == ("custom_download", "NONE")


async def test_replace_everything() -> None:
    phases = []

    async def my_initialization(phase, config, data):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, RET503
        phases.append(phase)
        if phase == "pre_initialization":
            return {"skip_default": True}
        if phase == "custom_initialization":
            return {"placement_group": "my group", "runtime_env": {"env_vars": {"A": "1"}}}

    config = LLMConfig(model="anything", engine="none", callbacks=[my_initialization])
    async with await initialize_node(config) as node:
        assert node.context["placement_group"] == "my group"
        assert node.context["runtime_env"] == {"env_vars": {"A": "1"}}
    assert phases == [
        "pre_initialization",
        "custom_initialization",
        "pre_engine_init",
        "post_engine_init",
        "post_initialization",
    ]


async def test_track_metrics(model: Path) -> None:
    class MetricsCallback:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def __call__(self, phase, config, data):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
            if phase.startswith("post_"):
                self.seen.append(phase)

    metrics = MetricsCallback()
    async with await initialize_node(LLMConfig(model=str(model), engine="none", callbacks=[metrics])):
        pass
    assert metrics.seen == ["post_download", "post_placement_group", "post_engine_init", "post_initialization"]


async def test_every_form_of_callable_is_a_callback() -> None:
    class Async:
        async def __call__(self, phase: str, config: Any, data: Any) -> dict[str, Any]:
            return {"object": 1}

    def with_extra(extra: str, phase: str, config: Any, data: Any) -> dict[str, Any]:
        return {extra: 1}

    async def coroutine(phase: str, config: Any, data: Any) -> dict[str, Any]:
        return {"lambda": 1}

    a_lambda = lambda phase, config, data: coroutine(phase, config, data)  # noqa: E731, PLW0108
    callbacks: list[Callable[..., Any]] = [Async(), partial(with_extra, "partial"), a_lambda]
    result = await CallbackRunner(callbacks).run("test", config={})
    assert result == {"object": 1, "partial": 1, "lambda": 1}
