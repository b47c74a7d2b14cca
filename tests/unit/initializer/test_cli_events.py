"""`phasebus events`: what is listed is what the code defines."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import phasebus.initializer
from phasebus.bus import Event
from phasebus.initializer.cli import main
from tests.support.docs import ROOT

MODULE = """
from dataclasses import dataclass
from typing import ClassVar
from phasebus.bus import Key, PhaseEvent, StepStarted

LIMIT = Key[int]("limit", doc="The most of them.", on_conflict="error", validate=int)

@dataclass(frozen=True, slots=True, kw_only=True)
class PreTakeOff(PhaseEvent):
    \"\"\"Published before taking off.\"\"\"
    phase: ClassVar[str] = "pre_take_off"
    passengers: int = 0

def look(event: PreTakeOff) -> None: ...
def anything(event) -> None: ...

class Watching:
    def observe(self, event: StepStarted | PreTakeOff) -> None: ...
"""


def listed(*arguments: str) -> dict[str, list[dict[str, Any]]]:
    result = CliRunner().invoke(main, ["events", "--json", *arguments])
    assert result.exit_code == 0, result.output
    found: dict[str, list[dict[str, Any]]] = json.loads(result.output)
    return found


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "flights_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "flights_of_mine", raising=False)
    return "flights_of_mine"


def test_json_lists_every_public_event_with_doc_fields_and_observers() -> None:
    events = {event["name"]: event for event in listed()["events"]}
    public = {
        name
        for name in phasebus.initializer.__all__
        if isinstance(thing := getattr(phasebus.initializer, name), type) and issubclass(thing, Event)
    }
    assert public <= set(events)
    assert events["PreDownload"]["phase"] == "pre_download"
    assert events["StepProgress"]["fields"]["done"] == "float"
    assert "phasebus.observers.spans.SpanObserver" in events["StepStarted"]["handled_by"]
    assert {name.rpartition(".")[2][0].isupper() for event in events.values() for name in event["handled_by"]} == {True}
    assert [name for name, event in events.items() if not event["doc"]] == []


def test_json_lists_every_key_with_type_doc_and_rules() -> None:
    keys = {(key["module"], key["name"]): key for key in listed()["keys"]}
    engine_args = keys["phasebus.initializer.node.keys", "engine_args"]
    assert engine_args["type"] == "dict[str, Any]"
    assert [key for key in keys.values() if not key["doc"]] == []


def test_events_and_keys_can_be_imported_from_where_the_catalog_names() -> None:
    found = listed()
    for entry in (*found["events"], *found["keys"]):
        name = entry.get("constant", entry["name"])
        assert hasattr(importlib.import_module(entry["import_from"]), name), entry
        assert not any(part.startswith("_") for part in entry["import_from"].split(".")), entry


def test_modules_of_the_users_own_are_listed_with_their_callbacks(module: str) -> None:
    found = listed("--module", module)
    (event,) = (each for each in found["events"] if each["module"] == module)
    assert (event["name"], event["phase"], event["doc"]) == (
        "PreTakeOff",
        "pre_take_off",
        "Published before taking off.",
    )
    assert {f"{module}.look", f"{module}.Watching"} <= set(event["handled_by"])
    assert f"{module}.anything" not in event["handled_by"]
    (key,) = (each for each in found["keys"] if each["module"] == module)
    assert key == {
        "name": "limit",
        "constant": "LIMIT",
        "module": module,
        "import_from": module,
        "type": "int",
        "doc": "The most of them.",
        "on_conflict": "error",
        "validated": True,
    }


def test_text_lists_the_same(module: str) -> None:
    result = CliRunner().invoke(main, ["events", "--module", module])
    assert result.exit_code == 0
    assert f"PreTakeOff  phase pre_take_off  ({module})\n    Published before taking off.\n" in result.output
    assert f"limit: int  LIMIT  ({module})\n    The most of them.\n" in result.output


def test_module_that_cannot_be_imported_is_an_error_with_its_name() -> None:
    result = CliRunner().invoke(main, ["events", "--module", "no_such_module"])
    assert result.exit_code == 1
    assert "cannot import no_such_module: No module named 'no_such_module'" in result.output


def test_the_page_of_the_docs_is_the_output_in_markdown() -> None:
    command = [sys.executable, "-m", "phasebus.initializer.cli", "events", "--markdown"]  # lists what is imported
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert (ROOT / "docs" / "reference" / "events.md").read_text() == printed, (
        "phasebus events --markdown > docs/reference/events.md"
    )


def test_markdown_has_a_row_for_each_phase_field_and_key_of_a_module(module: str) -> None:
    result = CliRunner().invoke(main, ["events", "--markdown", "--module", module])
    assert "| `pre_take_off` | `PreTakeOff` | Published before taking off. | `flights_of_mine` |" in result.output
    assert "| `PreTakeOff` | `PhaseEvent` | `passengers: int` | Published before taking off. |" in result.output
    assert "| `limit` | `LIMIT` | `int` | The most of them. | one writer an event, validated |" in result.output
