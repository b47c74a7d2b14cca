from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from phasebus.initializer.cli import main
from phasebus.telemetry.analysis import page_state
from phasebus.telemetry.journal import Run, journal_path
from tests.support.runs import cluster, run_of, step, write_journal

RUN = "20260101T000000-aaaa"


@pytest.fixture
def journal() -> Path:
    run = run_of(
        step("node", 0, 20, kind="node", model="m"),
        step("download", 0, 8, "node"),
        step("engine_init", 8, 20, "node"),
        step("load_weights", 12, 18, "engine_init", kind="engine_step"),
        run=RUN,
        end=20,
    )
    return write_journal(journal_path(RUN), run)


def report(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["report", *arguments])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "engine init"),
        (["blame"], "engine init"),
        (["critical-path"], "load weights"),
        (["gaps"], "its begin"),
        (["stragglers"], "nothing to compare"),
    ],
)
@pytest.mark.parametrize("run", [[], [RUN], ["20260101"]])
def test_each_report_is_of_the_last_run_or_of_the_one_that_is_named(
    journal: Path, run: list[str], arguments: list[str], expected: str
) -> None:
    result = report(*run, *arguments)
    assert result.exit_code == 0, result.output
    assert f"run {RUN}: ready in 20 s" in result.output
    assert expected in result.output


def test_blame_names_files_phases_of_callbacks_processes_and_nodes() -> None:
    run = run_of(
        step("c", 0, 20, kind="cluster", node=""),
        step("n", 0, 20, "c", kind="node", node="n"),
        step("m", 0, 20, "c", kind="node", node="m"),
        step("model-00001.safetensors", 0, 8, "n", kind="file"),
        step("add_flags", 8, 9, "n", kind="callback", phase="pre_engine_init"),
        step("load_weights", 12, 18, "n", kind="engine_step", process="Worker_TP3"),
        run=RUN,
        end=20,
    )
    write_journal(journal_path(RUN), run)
    output = report("blame").output
    for name in (
        "file model-00001.safetensors on n",
        "callback add_flags in pre engine init on n",
        "load weights · Worker_TP3 on n",
    ):
        assert name in output


@pytest.mark.parametrize("name", ["blame", "critical-path", "gaps", "stragglers"])
def test_report_prints_names_that_look_like_markup(name: str) -> None:
    odd = "[red]x[/blue][/]"
    steps = [step(odd, 0, 20, kind="node"), step(f"{odd}2", 12, 18, odd, kind="mine", process=odd)]
    write_journal(journal_path(RUN), run_of(*steps, run=RUN, end=20))
    result = report(name)
    assert result.exit_code == 0
    assert name == "stragglers" or odd in result.output


def test_a_journal_is_named_by_its_path(journal: Path, tmp_path: Path) -> None:
    elsewhere = journal.rename(tmp_path / "mine.jsonl")
    assert "ready in 20 s" in report(str(elsewhere), "blame").output


@pytest.mark.parametrize("name", ["blame", "critical-path", "gaps", "stragglers", "plot"])
def test_every_report_is_to_be_had_as_json(journal: Path, name: str) -> None:
    result = report(name, "--json")
    assert result.exit_code == 0, result.output
    expected = json.loads(result.stdout)
    assert (expected["run"], expected["seconds"], expected["outcome"]) == (RUN, 20.0, "finished")
    assert expected[{"critical-path": "critical_path", "plot": "steps"}.get(name, name)] or name == "stragglers"


def test_json_without_a_command_is_that_of_blame(journal: Path) -> None:
    assert json.loads(report("--json").stdout)["blame"][0]["seconds"] == 20.0


def test_the_slowest_nodes_of_a_cluster_are_named() -> None:
    write_journal(journal_path("c"), cluster(3, slowest=1))
    assert "node-1" in report("stragglers").output


def test_a_picture_and_a_trace_are_written_where_they_are_wanted(journal: Path, tmp_path: Path) -> None:
    picture, trace = tmp_path / "a.svg", tmp_path / "b.json"
    assert report("plot", "-o", str(picture)).exit_code == 0
    assert report("perfetto", "-o", str(trace)).exit_code == 0
    assert picture.read_text().startswith("<svg")
    assert json.loads(trace.read_text())["traceEvents"]
    assert report("plot", "-o", "-").stdout == picture.read_text()
    assert json.loads(report("perfetto", "--json").stdout) == json.loads(trace.read_text())


def test_a_page_of_the_run_is_one_file_with_all_in_it(journal: Path, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    assert report("plot", "-o", str(page)).exit_code == 0
    embedded = page.read_text().partition('id="embedded">')[2].partition("</script>")[0]
    assert [step["name"] for step in json.loads(embedded)["steps"]] == [
        "node",
        "download",
        "engine_init",
        "load_weights",
    ]


def test_the_page_of_a_run_has_the_usual_durations_of_earlier_ones() -> None:
    def recorded(seconds: float) -> Run:
        node = step("node", 0, seconds, kind="node", model="m", configuration="c0ffee")
        return run_of(node, step("download", 0, seconds / 2, "node"), end=seconds)

    state = page_state(recorded(40), [recorded(20), recorded(22), recorded(24)])
    usual = {each["name"]: each["usual"] for each in state["steps"]}
    assert (usual["node"]["seconds"], usual["download"]["seconds"]) == (22, 11)
    assert all("usual" not in each for each in page_state(recorded(40))["steps"])


def test_a_file_that_cannot_be_written_is_named(journal: Path, tmp_path: Path) -> None:
    result = report("plot", "-o", str(tmp_path / "no" / "a.svg"))
    assert result.exit_code == 1
    assert "a.svg cannot be written" in result.output


def slower(seconds: float, run: str) -> Path:
    steps = (step("node", 0, 20 + seconds, kind="node"), step("download", 0, 8 + seconds, "node"))
    return write_journal(journal_path(run), run_of(*steps, run=run, end=20 + seconds))


@pytest.mark.parametrize(
    ("seconds", "options", "code"), [(5, [], 3), (0.4, [], 0), (5, ["--percent", "80"], 0), (-3, [], 0)]
)
def test_diff_ends_with_3_only_if_the_second_run_is_slower(seconds: float, options: list[str], code: int) -> None:
    slower(0, "a")
    slower(seconds, "b")
    result = report("diff", "a", "b", *options)
    assert result.exit_code == code, result.output
    assert "download" in result.output
    as_json = report("diff", "a", "b", "--json", *options)
    assert as_json.exit_code == code
    assert json.loads(as_json.stdout)["slower"] is (code == 3)


def test_diff_wants_its_runs_after_its_name(journal: Path) -> None:
    result = report(RUN, "diff", RUN, RUN)
    assert result.exit_code == 2
    assert "phasebus report diff BEFORE AFTER" in result.output


# journals that are not whole, and things that are no journal


def test_a_run_that_is_still_going_is_counted_until_now(journal: Path) -> None:
    import os

    import psutil

    lines = journal.read_text().splitlines()
    me = {"pid": os.getpid(), "process_created": psutil.Process().create_time()}
    began = [line for line in lines[1:] if json.loads(line)["event"] == "StepStarted"]
    journal.write_text("\n".join([json.dumps(json.loads(lines[0]) | me), *began, ""]))
    result = report()
    assert result.exit_code == 0
    assert "still starting, for" in result.output


def test_closed_run_without_the_end_of_the_start_is_not_described_as_running(journal: Path) -> None:
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:-3], lines[-1]]))
    result = report("critical-path")
    assert result.exit_code == 0
    assert "its journal lacks its end, as after a full disk; the last event was" in result.output


def test_a_run_whose_process_was_killed_is_described_as_died(journal: Path) -> None:
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-3]) + lines[-3][:20])
    result = report("critical-path")
    assert result.exit_code == 0
    assert "its process died; its last event was 18 s after its beginning" in result.output


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hello\n", "is not a journal that this phasebus can read: first line: not JSON"),
        (
            '{"event": "JournalOpened", "format": 0, "time_ns": 1}\n',
            "is not a journal that this phasebus can read: first line: 'run' is not text",
        ),
        (
            '{"event": "JournalOpened", "format": 9, "time_ns": 1, "phasebus": "9.0"}\n',
            "phasebus 9.0 wrote format 9, and this version reads up to",
        ),
    ],
)
def test_a_file_that_is_no_journal_of_this_version_is_an_error_of_one_line(content: str, expected: str) -> None:
    path = journal_path("x")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    result = report("gaps")
    assert result.exit_code == 1
    assert expected in result.output
    assert "Traceback" not in result.output


def test_lines_that_cannot_be_read_are_counted_in_a_warning(journal: Path) -> None:
    lines = journal.read_text().splitlines(keepends=True)
    lines[0] = "\ufeff" + lines[0]
    journal.write_text("".join([*lines[:2], '{"event": "StepSt\n', "\0" * 4096 + "\n", *lines[2:]]))
    result = report("blame")
    assert result.exit_code == 0
    assert f"run {RUN}: ready in 20 s" in result.output
    assert "2 lines of the journal could not be read; the report lacks what they recorded\n" in result.output


def test_a_binary_file_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "picture.jsonl"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    result = report(str(path))
    assert result.exit_code == 1
    assert "not a journal" in result.output


def test_a_mistyped_command_is_recognized(journal: Path) -> None:
    result = report("blmae")
    assert result.exit_code == 1
    assert "did you mean `phasebus report blame`?" in result.output


def test_an_unknown_command_after_a_run_lists_what_there_is(journal: Path) -> None:
    result = report(RUN, "nonsense")
    assert result.exit_code == 2
    assert "critical-path" in result.output


def test_it_explains_itself_without_any_run() -> None:
    assert "critical-path" in report("--help").output
    assert report("diff", "--help").exit_code == 0
