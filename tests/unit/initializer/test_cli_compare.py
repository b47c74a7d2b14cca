from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from phasebus.initializer.cli import main
from phasebus.initializer.cli.compare import compare as compare_command
from phasebus.telemetry.analysis.comparison import SMALLEST_SHARE
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


def test_smallest_shift_of_the_command_is_that_of_the_analysis() -> None:
    percent = next(each for each in compare_command.params if each.name == "percent")
    assert percent.default == 100 * SMALLEST_SHARE


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
    output = compare(configuration.fingerprint, folders[1]).output
    assert "9 runs" in output
    assert "differs" not in output, "the second series has no configuration"
    for name in ("none", str(Path(folders[0]).parent / "missing")):
        unknown = compare(name, folders[1])
        assert unknown.exit_code == 1
        assert name in unknown.output
        assert "phasebus runs list" in unknown.output


def test_the_factors_in_which_the_configurations_differ_are_printed(tmp_path: Path) -> None:
    for name, version, starts in (("a", "0.29.0", 2), ("b", "0.32.0", 1)):
        factors = {"model": "m", "version.vllm": version, f"args.{name}": True}
        write_series(tmp_path / name, 10, starts, **Configuration.of(factors).attributes)
    compared = str(tmp_path / "a"), str(tmp_path / "b")
    lines = [line for line in compare(*compared).output.splitlines() if line.startswith("differs ")]
    assert lines == [
        "differs args.a: True > none",
        "differs args.b: none > True",
        "differs version.vllm: 0.29.0 > 0.32.0",
    ]
    assert json.loads(compare(*compared, "--json").output)["factors"]["version.vllm"] == ["0.29.0", "0.32.0"]


def test_the_steps_with_the_largest_change_come_first_whatever_its_direction(tmp_path: Path) -> None:
    for name, durations in (("a", (6, 4, 2)), ("b", (3, 5, 2))):
        for number in range(5):
            ends = [sum(durations[:last]) for last in range(4)]
            steps = [step(f"s{at}", ends[at], ends[at + 1], "node") for at in range(3)]
            run = f"2026010{number}T000000-{name}"
            made = run_of(step("node", 0, ends[-1], kind="node"), *steps, run=run, end=ends[-1])
            write_journal(tmp_path / name / "runs" / f"{run}.jsonl", made)
    rows = compare(str(tmp_path / "a"), str(tmp_path / "b")).output.splitlines()[-3:]
    assert [row.split()[:2] for row in rows] == [["-3.00", "-3.00"], ["+1.00", "+1.00"], ["+0.00", "+0.00"]]
