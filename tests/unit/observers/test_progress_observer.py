"""Bars on a terminal, lines in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from phasebus.bus import StepFailed, StepFinished, StepProgress
from phasebus.observers.progress import ProgressObserver

MODEL, FILE = "a" * 16, "b" * 16
GIB = 10**9


@pytest.fixture(autouse=True)
def _no_variables_of_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESSIBLE", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def progress(done: float, seconds: float, total: float | None = 4 * GIB, **fields: object) -> StepProgress:
    known = {"step": MODEL, "kind": "download", "name": "hf://org/name", "unit": "By", **fields}
    return StepProgress(done=done, total=total, monotonic_ns=int(seconds * 1e9), **known)  # type: ignore[arg-type]


def in_a_log() -> tuple[ProgressObserver, io.StringIO]:
    out = io.StringIO()
    return ProgressObserver(Console(file=out, force_terminal=False, width=200), interval=10), out


def on_a_terminal() -> tuple[ProgressObserver, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, legacy_windows=False, _environ={"TERM": "xterm"})
    return ProgressObserver(console), out


def test_a_log_gets_a_line_now_and_then_with_rate_and_time_left() -> None:
    observer, out = in_a_log()
    for second in range(25):
        observer.observe(progress(second * GIB / 10, float(second)))
    observer.observe(StepFinished(step=MODEL, kind="download", name="hf://org/name", seconds=40.0))
    assert out.getvalue().splitlines() == [
        "download model hf://org/name: 1 GB of 4 GB (25 %), 100 MB/s, 30 s left",
        "download model hf://org/name: 2 GB of 4 GB (50 %), 100 MB/s, 20 s left",
        "download model hf://org/name: done after 40 s",
    ]


def test_a_name_is_printed_as_it_is() -> None:
    observer, out = in_a_log()
    observer.observe(progress(0, 0, name="models:key:[red]"))
    observer.observe(StepFinished(step=MODEL, kind="download", name="models:key:[red]", seconds=4.0))
    assert out.getvalue() == "download model models:key:[red]: done after 4 s\n"


def test_bytes_that_were_there_at_the_start_do_not_count_as_rate() -> None:
    observer, out = in_a_log()
    observer.observe(progress(2 * GIB, 0))
    observer.observe(progress(3 * GIB, 10))
    assert "100 MB/s, 10 s left" in out.getvalue()


def test_without_a_total_there_is_no_time_left() -> None:
    observer, out = in_a_log()
    observer.observe(progress(0, 0, None))
    observer.observe(progress(GIB, 10, None))
    assert out.getvalue() == "download model hf://org/name: 1 GB, 100 MB/s\n"


def test_a_step_inside_a_shown_step_has_no_lines() -> None:
    observer, out = in_a_log()
    observer.observe(progress(0, 0))
    observer.observe(progress(0, 0, step=FILE, parent=MODEL, kind="file", name="a.bin"))
    observer.observe(progress(GIB, 60, step=FILE, parent=MODEL, kind="file", name="a.bin"))
    observer.observe(StepFinished(step=FILE, parent=MODEL, kind="file", name="a.bin", seconds=60))
    assert out.getvalue() == ""


def test_steps_that_move_no_bytes_are_none_of_its_business() -> None:
    observer, out = in_a_log()
    for second in (0, 60):
        observer.observe(progress(second, second, kind="train", name="epoch", unit="1"))
    observer.observe(StepFinished(step=MODEL, kind="train", name="epoch", seconds=60))
    assert out.getvalue() == ""


def test_a_failure_is_shown_without_secrets() -> None:
    observer, out = in_a_log()
    name = "https://user:hunter2@host/x?sig=hunter2"
    observer.observe(progress(0, 0, name=name))
    observer.observe(StepFailed(step=MODEL, kind="download", name=name, seconds=3, outcome="failed", error=OSError()))
    assert "failed after 3 s" in out.getvalue()
    assert "hunter2" not in out.getvalue()


def test_a_terminal_gets_live_bars_for_a_model_and_its_files() -> None:
    observer, out = on_a_terminal()
    observer.observe(progress(0, 0))
    observer.observe(progress(0, 0, step=FILE, parent=MODEL, kind="file", name="a.bin"))
    observer.observe(progress(2 * GIB, 1, step=FILE, parent=MODEL, kind="file", name="a.bin"))
    observer.observe(progress(2 * GIB, 1))
    assert observer._bars is not None
    assert [task.description.strip() for task in observer._bars.tasks] == ["download model hf://org/name", "a.bin"]
    assert [task.percentage for task in observer._bars.tasks] == [50.0, 50.0]
    observer.observe(StepFinished(step=FILE, parent=MODEL, kind="file", name="a.bin", seconds=2))
    assert len(observer._bars.tasks) == 1
    observer.observe(StepFinished(step=MODEL, kind="download", name="hf://org/name", seconds=2))
    assert observer._bars is None
    assert "2.0/4.0 GB" in out.getvalue()


def test_closing_leaves_no_bar_and_no_thread_behind() -> None:
    observer, _ = on_a_terminal()
    observer.observe(progress(0, 0))
    bars = observer._bars
    observer.close()
    assert bars is not None
    assert not bars.live.is_started
    observer.close()
