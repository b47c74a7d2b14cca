from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from phasebus.initializer.cli import main
from phasebus.initializer.cli.measured.starts import Contender
from phasebus.telemetry.history import FINGERPRINT
from phasebus.telemetry.journal import journal_path
from tests.support.runs import run_of, step, write_journal


def advise(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["advise", *arguments])


def write(run: str, *steps: object, end: float = 60.0, outcome: str = "finished", **attributes: str) -> None:
    root = step("node", 0, end, kind="node", outcome=outcome, **attributes)
    write_journal(journal_path(run), run_of(root, *steps, run=run, end=end))  # type: ignore[arg-type]


def test_advice_has_what_to_do_what_it_costs_and_what_it_saves() -> None:
    inspected = {"cache.model_inspection": "miss", "process": "front_end"}
    write(
        "20260101T000000-aaaa",
        step("import_engine", 0, 40, "node", kind="engine_step", process="front_end"),
        step("configure_engine", 40, 60, "node", kind="engine_step", **inspected),
        command="vllm serve m",
    )
    shown = advise()
    assert shown.exit_code == 0
    first, second = (line for line in shown.output.splitlines() if line.startswith("-"))
    assert first == "-38.8 s (65 %)  keep a fork server that has vLLM imported"
    assert second == "-18 s (30 %)  keep the inspection of the model's class between starts"
    assert "VLLM_CACHE_ROOT" in shown.output
    as_json = json.loads(advise("last", "--json").output)
    assert [round(each["saved_seconds"], 1) for each in as_json] == [38.8, 18.0]


def test_a_fork_server_is_not_advised_to_a_start_that_was_forked_from_one() -> None:
    write(
        "20260101T000000-aaaa",
        step("import_engine", 0, 0.2, "node", kind="engine_step", process="front_end"),
        step("configure_engine", 0.2, 2, "node", kind="engine_step", process="front_end"),
        end=2.0,
        command="vllm serve m",
    )
    assert "fork server" not in advise().output


def test_inspection_beside_the_imports_of_a_fork_server_is_not_advised() -> None:
    inspected = {"cache.model_inspection": "miss", "process": "front_end"}
    write(
        "20260101T000000-aaaa",
        step("configure_engine", 0, 30, "node", kind="engine_step", **inspected),
        step("wait_for_fork_server", 30, 31, "node", kind="engine_step", process="EngineCore"),
    )
    assert "inspection" not in advise().output


def test_a_saving_below_the_differences_in_the_history_is_not_advised() -> None:
    for number, seconds in enumerate((50.0, 60.0, 70.0, 60.0)):
        slow = step("slow", 0, 5, "node", kind="callback")
        write(f"20260101T00000{number}-aaaa", slow, end=seconds, **{FINGERPRINT: "f"})
    assert "drop the callback slow" not in (shown := advise().output)
    assert "Savings below 7.41 s are left out" in shown


def test_nothing_to_change_is_reported() -> None:
    write("20260101T000000-aaaa", step("a", 0, 60, "node"))
    assert "No change that phasebus knows" in advise().output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--", "vllm", "serve"], 2, "only started with --measure"),
        (["--measure"], 2, "needs one configuration, or a command"),
        (["--measure", "none.yaml"], 2, "no configuration none.yaml"),
        (["none"], 1, "no run 'none'"),
        (["20260101T000000-bbbb"], 1, "has not become ready"),
    ],
)
def test_what_cannot_be_advised_is_refused(arguments: list[str], code: int, message: str) -> None:
    write("20260101T000000-bbbb", outcome="failed")
    refused = advise(*arguments)
    assert refused.exit_code == code
    assert message in refused.output


def test_bytecode_is_measured_in_a_folder_that_one_start_fills_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Contender] = []

    def start(contender: Contender) -> float:
        """Start nothing; write the journal of a start that compiles, unless a start has filled its folder."""
        caches = contender.variables.get("PYTHONPYCACHEPREFIX")
        is_filled = any(caches == each.variables.get("PYTHONPYCACHEPREFIX") for each in started) and caches is not None
        started.append(contender)
        end, compiled = (12.5, 0) if is_filled else (20.0, 1_000_000)
        seconds = 10.0 if len(started) > 3 else 6.0
        about: dict[str, Any] = {"compile_seconds": seconds, "compiled_bytes": compiled} if compiled else {}
        run = f"20260101T0000{len(started):02}-aaaa"
        steps = (step("node", 0, end, kind="node"), step("import_engine", 0, 10, "node", kind="engine_step", **about))
        write_journal(contender.folder / "runs" / f"{run}.jsonl", run_of(*steps, run=run, end=end))
        return end

    def start_all(contenders: Sequence[Contender], starts: int) -> None:
        for each in list(contenders) * starts:
            start(each)

    monkeypatch.setattr("phasebus.initializer.cli.measured.advice.start_once", start)
    monkeypatch.setattr("phasebus.initializer.cli.measured.advice.start_in_turns", start_all)
    shown = advise("--measure", "-n", "2", "--into", str(tmp_path / "journals"), "--", "vllm", "serve", "m")
    assert shown.exit_code == 0, shown.output
    assert "compile the packages once: ready in 12.5 s; predicted -6.4 s, measured -7.50 s" in shown.output
    first, filling, *turns = started
    assert not first.variables
    assert filling.variables["PYTHONDONTWRITEBYTECODE"] == ""
    assert [each.variables for each in turns] == [{}, filling.variables] * 2
    assert not Path(filling.variables["PYTHONPYCACHEPREFIX"]).exists()
