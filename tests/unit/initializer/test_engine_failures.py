"""The error of an engine that does not start."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phasebus.initializer import EngineError
from phasebus.initializer.engines.protocol import describe_exit
from phasebus.initializer.engines.vllm.arguments import check_arguments, check_weights
from phasebus.initializer.engines.vllm.inside import processes
from phasebus.initializer.engines.vllm.inside.ranks import ProcessIdentity
from phasebus.initializer.engines.vllm.output import first_error, last_lines
from phasebus.initializer.engines.vllm.step_tracker import StepTracker
from phasebus.telemetry.relay import NoticeReader
from tests.support.waiting import wait_until

_OUTPUT = """\
INFO 11-24 08:20:01 [config.py:1] Error: nothing is wrong yet
(EngineCore pid=7) ERROR 11-24 08:20:01 [core.py:1101] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-24 08:20:01 [core.py:1101]   File "loader.py", line 3, in load
(EngineCore pid=7) ERROR 11-24 08:20:01 [core.py:1101]     raise RuntimeError("no weights")
(EngineCore pid=7) ERROR 11-24 08:20:01 [core.py:1101] RuntimeError: no weights
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above.
""".splitlines()


def test_first_error_of_the_output_is_the_cause() -> None:
    assert first_error(_OUTPUT) == "RuntimeError: no weights"
    assert first_error(_OUTPUT[:1]) is None
    assert first_error(["Traceback (most recent call last):", "torch.OutOfMemoryError: CUDA out of memory."]) == (
        "torch.OutOfMemoryError: CUDA out of memory."
    )


def test_error_message_has_the_last_lines_of_the_output(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    assert last_lines(log) == f"\nits output, {log}, cannot be read"
    log.write_text("")
    assert last_lines(log) == ""
    log.write_text("\n".join(_OUTPUT))
    shown = last_lines(log).splitlines()
    assert shown[1:3] == ["the first error in its output: RuntimeError: no weights", f"its last lines (all in {log}):"]


def test_error_message_is_made_from_the_ends_of_a_long_output(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with log.open("wb") as file:
        file.write("\n".join(_OUTPUT).encode())
        file.truncate(1 << 31)
        file.seek(0, 2)
        file.write(b"\nthe end\n")
    shown = last_lines(log)
    assert "RuntimeError: no weights" in shown
    assert shown.endswith("\n  the end")


def test_folder_without_weights_is_rejected_unless_the_format_needs_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EngineError, match=r"has no weights .*there are: config.json.*load_format: dummy"):
        check_weights(str(tmp_path), {})
    check_weights(str(tmp_path), {"load_format": "dummy"})
    check_weights("org/name", {})
    (tmp_path / "model.safetensors").touch()
    check_weights(str(tmp_path), {})


def test_shard_whose_name_no_file_can_have_is_missing(tmp_path: Path) -> None:
    named = {"a": "a.safetensors", "b": "b" * 256, "c": "c\0"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(EngineError, match=r"index\.json names bbb"):
        check_weights(str(tmp_path), {})


def test_missing_shard_is_an_error_before_the_engine_starts(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}'
    )
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(EngineError, match=r"index.json names b.safetensors, and it is not there"):
        check_weights(str(tmp_path), {})
    check_weights(str(tmp_path), {"load_format": "dummy"})
    (tmp_path / "b.safetensors").touch()
    check_weights(str(tmp_path), {})
    check_weights("m" * 300, {})
    for shard in tmp_path.glob("*.safetensors"):
        shard.unlink()
    (tmp_path / "pytorch_model.bin").touch()
    check_weights(str(tmp_path), {})


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "ended with exit code 1"),
        (-15, "was ended by SIGTERM"),
        (-9, "was ended by SIGKILL, as the kernel does when memory runs out"),
        (-99, "was ended by signal 99"),
    ],
)
def test_exit_code_or_signal_is_described_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


class _Sent:
    def __init__(self) -> None:
        self.notices: list[dict[str, Any]] = []

    def send(self, notice: dict[str, Any]) -> None:
        self.notices.append(notice)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_exit_of_an_engine_process_is_reported_by_its_parent(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", multiprocessing.process.BaseProcess.start)
    sent, steps = _Sent(), StepTracker()
    processes.report_child_processes(sent)  # type: ignore[arg-type]
    monkeypatch.setattr(processes, "identity_of", lambda process: ProcessIdentity("Worker_TP0"))
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=signal.pause, name="VllmWorker-0")
    process.start()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: len(sent.notices) == 2, "its exit is reported without a caller of poll")
    process.join()
    assert process.exitcode == -9
    assert [notice["event"] for notice in sent.notices] == ["started", "exited"]
    for notice in sent.notices:
        (read,), _ = NoticeReader().read(_json(notice))
        list(steps.events_of(read))
    words = "was ended by SIGKILL, as the kernel does when memory runs out"
    assert steps.first_death() == f"Worker_TP0 (process {process.pid}) {words}"
    (died,) = steps.abandoned("failed", "")
    assert str(died.error) == f"its process {words}"  # type: ignore[attr-defined]


def test_watcher_ends_if_the_system_kept_no_exit_code() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    gone = SimpleNamespace(pid=2**22 + 1, name="gone", _popen=SimpleNamespace(sentinel=reading, poll=lambda: None))
    sent = _Sent()
    processes._report_exit(sent, gone, ProcessIdentity("Worker"))  # type: ignore[arg-type]
    wait_until(
        lambda: "phasebus gone" not in {thread.name for thread in threading.enumerate()}, "its watcher has ended"
    )
    assert sent.notices == []
    os.close(reading)


def test_exit_is_reported_once_by_the_caller_that_polls_first() -> None:
    reading, writing = os.pipe()  # the watcher is not woken
    killed = SimpleNamespace(pid=2**22 + 1, name="killed", _popen=SimpleNamespace(sentinel=reading, poll=lambda: -9))
    sent = _Sent()
    processes._report_exit(sent, killed, ProcessIdentity("Worker"))  # type: ignore[arg-type]
    assert [killed._popen.poll(), killed._popen.poll()] == [-9, -9]
    assert [notice["attributes"]["exit_code"] for notice in sent.notices] == [-9]
    os.close(writing)
    wait_until(
        lambda: "phasebus killed" not in {thread.name for thread in threading.enumerate()}, "its watcher has ended"
    )
    os.close(reading)


def _json(notice: dict[str, Any]) -> bytes:
    return json.dumps(notice).encode()


def test_unknown_argument_is_rejected_with_the_nearest_known_one() -> None:
    with pytest.raises(EngineError, match="no engine argument 'max_num_seq'; did you mean 'max_num_seqs'"):
        check_arguments({"max_num_seq": 4}, {"max_num_seqs", "dtype"})
    check_arguments({"dtype": "half"}, {"dtype"})
    check_arguments({"anything": 1}, ())


def test_exit_codes_are_kept_where_ray_ignores_sigchld() -> None:
    script = (
        "import multiprocessing, os, signal\n"
        "from phasebus.initializer.ray.exit_codes import keep_exit_codes\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "keep_exit_codes()\n"
        "process = multiprocessing.get_context('fork').Process(target=os._exit, args=(3,))\n"
        "process.start()\n"
        "process.join()\n"
        "assert process.exitcode == 3, process.exitcode\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
