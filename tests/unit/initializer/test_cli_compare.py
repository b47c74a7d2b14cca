from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from phasebus.initializer.cli import main
from phasebus.telemetry.history import Configuration
from phasebus.telemetry.journal import journal_path
from tests.support.runs import run_of, step, write_journal


def write_series(folder: Path, seconds: float, starts: int = 9, **attributes: Any) -> None:
    for number in range(starts):
        run = f"2026010{number}T000000-{folder.name:0>4}"
        long = seconds + number / 100
        steps = [step("node", 0, long, kind="node", **attributes), step("callback_a", 0, long, "node", kind="callback")]
        write_journal(folder / "runs" / f"{run}.jsonl", run_of(*steps, run=run, end=long))


def compare(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["compare", *arguments])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    write_series(tmp_path / "a", 10)
    write_series(tmp_path / "b", 11)
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_a_slower_series_has_exit_code_3_and_its_step_is_named(folders: tuple[str, str]) -> None:
    slower = compare(*folders)
    assert slower.exit_code == 3
    assert "The start is 10.0 % slower; the step that changed most is callback callback_a (+1.00 s)." in slower.output
    faster = compare(*folders[::-1])
    assert (faster.exit_code, "% faster" in faster.output) == (0, True)
    as_json = json.loads(compare(*folders, "--json").output)
    assert (as_json["slower"], as_json["whole"]["significant"], as_json["runs"]) == (True, True, [9, 9])


def test_equal_series_have_exit_code_0_and_few_runs_are_reported(folders: tuple[str, str], tmp_path: Path) -> None:
    equal = compare(folders[0], folders[0])
    assert equal.exit_code == 0
    assert "No difference that chance does not explain." in equal.output
    write_series(tmp_path / "c", 20, starts=2)
    assert "There are too few runs" in compare(folders[0], str(tmp_path / "c")).output
    assert compare(*folders, "--percent", "50").exit_code == 0


def test_a_configuration_stands_for_its_runs_and_unknown_names_are_errors(folders: tuple[str, str]) -> None:
    configuration = Configuration.of({"model": "m"})
    write_series(journal_path("x").parents[1], 10, model="m", **configuration.attributes)
    assert "9 runs" in compare(configuration.fingerprint, folders[1]).output
    for name in ("none", str(Path(folders[0]).parent / "missing")):
        unknown = compare(name, folders[1])
        assert unknown.exit_code == 1
        assert name in unknown.output
        assert "phasebus runs list" in unknown.output
