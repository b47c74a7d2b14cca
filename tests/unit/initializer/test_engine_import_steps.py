"""The longest imports as steps: nested, in the order they happened, and within the step that they are part of."""

from __future__ import annotations

import pytest

from phasebus.bus import Bus, StepEvent, StepFinished, StepStarted
from phasebus.initializer.engines.vllm.import_steps import publish_imports

pytestmark = pytest.mark.anyio


async def test_imports_are_steps_inside_each_other_and_none_precedes_its_parent() -> None:
    imports = [
        {"module": "early", "began_ns": 100, "ended_ns": 900, "inside": None, "compile_seconds": 9.0},
        {"module": "outer", "began_ns": 500, "ended_ns": 3000, "inside": None, "compile_seconds": 10.0},
        {"module": "inner", "began_ns": 960, "ended_ns": 3000, "inside": 1, "compile_seconds": 0.0},
    ]
    published: list[StepEvent] = []
    async with Bus() as bus:
        bus.subscribe(StepEvent, published.append)
        await publish_imports(bus, imports, step="f" * 16, since_ns=1000, attributes={"process": "front_end"})
    kinds = [(type(event).__name__, event.attributes["module"], event.time_ns) for event in published]
    assert kinds == [
        ("EngineStepStarted", "outer", 1000),  # the rest of an import that began before
        ("EngineStepStarted", "inner", 1000),
        ("EngineStepFinished", "inner", 3000),
        ("EngineStepFinished", "outer", 3000),
    ]
    outer, inner = (event for event in published if isinstance(event, StepStarted))
    assert outer.attributes["compile_seconds"] == 8.0  # of which as much as of its time
    assert "compile_seconds" not in inner.attributes
    assert (outer.parent, inner.parent) == ("f" * 16, outer.step)
    assert [event.seconds for event in published if isinstance(event, StepFinished)] == [2e-6, 2e-6]
