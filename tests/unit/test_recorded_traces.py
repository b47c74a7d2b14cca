"""The traces in docs/traces are whole, and hold nothing of the machine that they were recorded on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from phasebus.initializer.engines.vllm.names import ALL_STEPS
from phasebus.telemetry.names import KINDS
from phasebus.telemetry.span_names import span_name
from tests.support.traces import IDLE_OF_WORKERS, assert_is_one_trace, exported_json, process_times

FOLDER = Path(__file__).parents[2] / "docs" / "traces"
GUIDE = FOLDER.parent / "guides" / "tracing.md"
RECORDED = sorted(FOLDER.glob("*.json"))

PHASES = {
    *("pre_initialization", "custom_initialization", "download", "placement_group", "engine_process", "engine_init"),
    *("post_initialization", "pre_cluster", "post_cluster"),
}
"""The phases of a node and of a cluster."""


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_trace_is_whole_and_has_no_local_path(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    spans = exported_json(json.loads(text))
    assert_is_one_trace(spans)
    assert re.findall(r"/(?:home|root|tmp|work)\b[^\"]*", text) == []
    assert {each.resource["service.name"] for each in spans} == {"phasebus"}
    assert {each.resource["host.name"] for each in spans} <= {"node-0", "node-1"}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_spans_have_the_names_that_the_code_gives_them(path: Path) -> None:
    described = GUIDE.read_text(encoding="utf-8")
    for each in exported_json(json.loads(path.read_text(encoding="utf-8"))):
        kind, name = str(each.attributes["phasebus.kind"]), str(each.attributes["phasebus.name"])
        assert each.span.name == span_name(kind, name)
        match kind:
            case "engine_step":
                assert name in ALL_STEPS
            case "phase":
                assert name in PHASES
            case "ray" | "serve":
                assert f"`{each.span.name}`" in described
            case _:
                assert kind in KINDS


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_exclusive_times_of_each_process_add_up_to_its_life_in_the_start(path: Path) -> None:
    for process, times in process_times(exported_json(json.loads(path.read_text(encoding="utf-8")))).items():
        assert sum(times.exclusive_seconds.values()) == pytest.approx(times.life_seconds), process
        assert times.unattributed_share <= (IDLE_OF_WORKERS if "Worker" in process else 0.02), process


def test_every_recorded_trace_is_described() -> None:
    described = GUIDE.read_text(encoding="utf-8")
    assert [path.name for path in RECORDED if f"traces/{path.name}" not in described] == []
    assert RECORDED
