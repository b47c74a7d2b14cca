from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from phasebus.bus import Bus, Context, InvalidValueError, PhaseEvent, StepFailed, StepFinished, StepStarted
from phasebus.initializer import (
    ENGINE,
    MODEL,
    NODE_PHASES,
    DownloadError,
    EngineError,
    LLMConfig,
    PhaseFailed,
    PreDownload,
    PreInitialization,
    initialize_node,
)
from phasebus.initializer.engines.vllm.launch import VLLM
from phasebus.telemetry.journal import find_journal, read_journal

pytestmark = pytest.mark.anyio


async def test_the_phases_come_in_the_order_of_the_table_and_share_one_context(model: Path) -> None:
    seen: list[type[PhaseEvent]] = []
    contexts: list[Context] = []

    def watch(event: PhaseEvent, context: Context) -> None:
        seen.append(type(event))
        context["count"] = context.get("count", 0) + 1

    async with await initialize_node(LLMConfig(model=str(model), engine="none", callbacks=[watch])) as node:
        assert node.context["count"] == len(seen)
    assert [event for event in NODE_PHASES if event in seen] == [each for each in NODE_PHASES if each in seen]
    assert [event.phase for event in NODE_PHASES if event not in seen] == ["custom_initialization"]
    positions = [NODE_PHASES.index(event) for event in seen if event.phase.startswith("pre_")]
    assert positions == sorted(positions)
    assert contexts == []


async def test_a_callback_changes_what_the_step_uses(model: Path) -> None:
    async def another(event: PreDownload, context: Context) -> None:
        context[MODEL] = str(model)

    async with await initialize_node(LLMConfig(model="/not/there", engine="none", callbacks=[another])) as node:
        assert node.context["download_result"].path == model


async def test_an_engine_that_a_callback_provides_is_used_as_it_is() -> None:
    engine = object()

    def take_over(phase: str, config: Any, data: Any) -> dict[str, Any] | None:
        if phase == "pre_initialization":
            return {"skip_default": True}
        return {ENGINE: engine} if phase == "custom_initialization" else None

    async with await initialize_node(LLMConfig(model="m", engine="vllm", callbacks=[take_over])) as node:
        assert node.engine is engine


async def test_an_engine_that_has_died_when_all_phases_are_done_fails_the_start() -> None:
    class Dead:
        async def probe(self) -> None:
            raise EngineError("the engine core has died")

    def take_over(phase: str, config: Any, data: Any) -> dict[str, Any]:
        return {"skip_default": True, ENGINE: Dead()}

    with pytest.raises(EngineError, match="the engine core has died"):
        await initialize_node(LLMConfig(model="m", callbacks=[take_over]))
    (node,) = (step for step in read_journal(find_journal()).steps if step.kind == "node")
    assert node.outcome == "failed"


async def test_an_engine_that_a_callback_has_deleted_fails_the_start(model: Path) -> None:
    def delete(phase: str, config: Any, data: Any) -> None:
        if phase == "post_initialization":
            del data[ENGINE]

    with pytest.raises(EngineError, match="there is no engine"):
        await initialize_node(LLMConfig(model=str(model), engine="none", callbacks=[delete]))


async def test_a_missing_model_fails_the_download_by_name() -> None:
    with pytest.raises(DownloadError, match="/not/there") as caught:
        await initialize_node(LLMConfig(model="/not/there", engine="none"))
    assert "in the phase 'download'" in caught.value.__notes__
    run = read_journal(find_journal())
    assert {step.name: step.outcome for step in run.steps if step.kind == "phase"} == {
        "pre_initialization": "finished",
        "download": "failed",
    }


async def test_a_callback_that_raises_fails_the_start_with_its_name_and_phase(model: Path) -> None:
    def broken(phase: str, config: Any, data: Any) -> None:
        if phase == "post_download":
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom") as caught:
        await initialize_node(LLMConfig(model=str(model), engine="none", callbacks=[broken]))
    assert caught.value.__notes__ == [
        "raised by the callback 'broken' during phase 'post_download'",
        "in the phase 'download'",
    ]


async def test_an_invalid_value_is_rejected_where_it_is_written(model: Path) -> None:
    def negative(phase: str, config: Any, data: Any) -> dict[str, Any] | None:
        return {"placement_bundles": [{"CPU": -1}]} if phase == "pre_placement_group" else None

    with pytest.raises(InvalidValueError, match="'negative' wrote placement_bundles"):
        await initialize_node(LLMConfig(model=str(model), engine="none", callbacks=[negative]))


async def test_a_cancelled_start_has_its_phase_cancelled() -> None:
    failures: list[PhaseFailed] = []
    hanging = anyio.Event()

    async def hang(event: PreInitialization) -> None:
        hanging.set()
        await anyio.sleep_forever()

    def watch(event: PhaseFailed) -> None:
        failures.append(event)

    async def start() -> None:
        await initialize_node(LLMConfig(model="m", engine="none", callbacks=[hang]), bus=bus)

    async with Bus() as bus:
        bus.subscribe(None, watch)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            await hanging.wait()
            tasks.cancel_scope.cancel()
    assert [(event.phase, event.outcome) for event in failures] == [("pre_initialization", "cancelled")]


async def test_a_start_without_vllm_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(EngineError, match=r"vLLM is not installed; install it with: pip install 'phasebus\[vllm\]'"):
        VLLM().check({})


async def test_all_steps_end_and_form_one_tree(model: Path) -> None:
    begun: dict[str, StepStarted] = {}
    ended: list[str] = []

    def watch(event: StepStarted | StepFinished | StepFailed) -> None:
        if isinstance(event, StepStarted):
            begun[event.step] = event
        else:
            ended.append(event.step)

    async with Bus() as bus:
        bus.subscribe(None, watch)
        async with await initialize_node(LLMConfig(model=str(model), engine="none"), bus=bus):
            pass
    assert sorted(ended) == sorted(begun)
    roots = [step.kind for step in begun.values() if step.parent not in begun]
    assert roots == ["node"]


async def test_observers_among_the_callbacks_only_watch(model: Path) -> None:
    class Watching:
        def __init__(self) -> None:
            self.phases: list[str] = []

        def observe(self, event: PhaseEvent) -> None:
            self.phases.append(event.phase)

    watching = Watching()
    async with await initialize_node(LLMConfig(model=str(model), engine="none", callbacks=[watching])):
        pass
    assert watching.phases[0] == "pre_initialization"
    assert watching.phases[-1] == "post_initialization"
