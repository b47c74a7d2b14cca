from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from phasebus.initializer.cli import main
from phasebus.initializer.cli.report import show
from phasebus.telemetry.history import Configuration
from phasebus.telemetry.journal import journal_path, runs_folder
from tests.support.runs import run_of, step, write_journal

LONG, SHORT = (Configuration.of({"model": "m", "args.max_model_len": length}) for length in (4096, 256))
RUNS = [f"2026010{day}T000000-aaaa" for day in (1, 2, 3)]


@pytest.fixture(autouse=True)
def three_runs() -> None:
    for run, configuration, seconds in zip(RUNS, (LONG, SHORT, SHORT), (20, 10, 12), strict=True):
        root = step("node", 0, seconds, kind="node", model="m", **configuration.attributes)
        path = write_journal(
            journal_path(run), run_of(root, step("download", 0, seconds / 2, "node"), run=run, end=seconds)
        )
        old = time.time() - 86_400
        os.utime(path, (old, old))


def phasebus(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_the_runs_are_listed_with_their_fingerprints_the_newest_first() -> None:
    lines = phasebus("runs", "list").output.splitlines()[1:]
    assert [line.split()[0] for line in lines] == RUNS[::-1]
    assert SHORT.fingerprint in lines[0]
    assert LONG.fingerprint in lines[2]
    assert len(phasebus("runs", "list", "-n", "1").output.splitlines()) == 2
    as_json = json.loads(phasebus("runs", "list", "--json", "-c", LONG.fingerprint[:6]).output)
    assert [(each["run"], each["seconds"]) for each in as_json] == [(RUNS[0], 20.0)]


@pytest.mark.parametrize(("width", "lacks"), [(140, ""), (72, "began"), (50, "configuration")])
def test_narrow_list_lacks_columns_and_cuts_no_fingerprint(
    monkeypatch: pytest.MonkeyPatch, width: int, lacks: str
) -> None:
    monkeypatch.setattr(show, "_FILE_WIDTH", width)
    heading, first, *_ = phasebus("runs", "list").output.splitlines()
    assert lacks == "" or lacks not in heading
    assert all(each in first.split() for each in (RUNS[2], "finished", "12.00"))
    assert (SHORT.fingerprint in first.split()) == ("configuration" in heading)
    assert max(len(heading), len(first)) <= width


def test_a_run_is_shown_with_what_has_changed_and_what_is_usual() -> None:
    shown = phasebus("runs", "show", RUNS[1]).output
    assert SHORT.fingerprint in shown
    assert f"changed since {RUNS[0]}" in shown
    assert "args.max_model_len" in shown
    assert "usual          12 s, the median of 1 other run\n" in shown
    as_json = json.loads(phasebus("runs", "show", "--json").output)
    assert (as_json["run"], as_json["usual_seconds"], as_json["changed"]) == (RUNS[2], 10.0, {})


def test_prune_removes_what_is_not_kept() -> None:
    listed = phasebus("runs", "prune", "--keep", "1", "--dry-run").output
    assert "would remove 2 runs" in listed
    assert len(list(runs_folder().iterdir())) == 3
    assert "removed 2 runs" in phasebus("runs", "prune", "--keep", "1").output
    assert [path.stem for path in runs_folder().iterdir()] == [RUNS[2]]


def test_an_unknown_run_is_an_error_of_two_lines() -> None:
    result = phasebus("runs", "show", "nothing")
    assert result.exit_code == 1
    assert "phasebus runs list" in result.output


@pytest.mark.parametrize("report", ["blame", "critical-path", "gaps", "stragglers", "plot", "perfetto"])
def test_every_report_takes_a_run_before_or_after_its_name(report: str, tmp_path: Path) -> None:
    output = ["-o", "-"] if report in ("plot", "perfetto") else []
    after, before = phasebus("report", report, RUNS[0], *output), phasebus("report", RUNS[0], report, *output)
    assert after.exit_code == 0, after.output
    assert after.output == before.output
    assert phasebus("report", report, LONG.fingerprint, *output).output == after.output
    assert phasebus("report", RUNS[0], report, RUNS[1], *output).exit_code == 1


@pytest.mark.parametrize(("arguments", "code"), [(["usual"], 3), (["usual", RUNS[1]], 0), ([RUNS[2], "usual"], 0)])
def test_a_run_is_compared_with_the_usual(arguments: list[str], code: int) -> None:
    result = phasebus("report", "diff", *arguments)
    assert result.exit_code == code, result.output
    assert "the median of 1 run\n" in result.output
    as_json = json.loads(phasebus("report", "diff", "--json", *arguments).output)
    assert [RUNS[1]] in (as_json["before"], as_json["after"]) or [RUNS[2]] in (as_json["before"], as_json["after"])


def test_usual_needs_a_run_with_others_of_its_configuration() -> None:
    assert phasebus("report", "diff", "usual", "usual").exit_code == 2
    alone = phasebus("report", "diff", "usual", RUNS[0])
    assert alone.exit_code == 1
    assert "no other run with the configuration" in alone.output
