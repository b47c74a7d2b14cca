from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from phasebus.bus import StepStarted
from phasebus.observers.stuck import evidence, stacks
from phasebus.observers.stuck.evidence import only_wait, stuck_steps
from phasebus.observers.stuck.output import last_lines, no_space
from phasebus.observers.stuck.sockets import sockets_of
from phasebus.observers.stuck.stacks import offered_stacks, own_stacks
from phasebus.observers.stuck.suspects import Sign, Suspect
from phasebus.observers.stuck.waits import wait_of
from phasebus.stack_dump import handled_signals
from phasebus.telemetry.redaction import MASK

LIB = "/usr/lib/python3.12"
SITE = f"{LIB}/site-packages"


def stack(*frames: str) -> tuple[str, ...]:
    return (
        "\n".join(["main thread:", *(f'  File "{file}", line 7 in {name}' for name, _, file in map(split, frames))]),
    )


def split(frame: str) -> tuple[str, str, str]:
    return frame.partition("@")


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        # NCCL's start: https://github.com/QwenLM/Qwen3-VL/issues/1793
        (
            [f"ncclCommInitRank@{SITE}/vllm/distributed/device_communicators/pynccl_wrapper.py"],
            "waits for the other ranks",
        ),
        ([f"all_reduce@{SITE}/torch/distributed/distributed_c10d.py"], "waits for the other ranks"),
        # "No available shared memory broadcast block found": https://github.com/vllm-project/vllm/issues/27313
        (
            [
                f"sched_yield@{SITE}/vllm/distributed/utils.py",
                f"acquire_read@{SITE}/vllm/distributed/device_communicators/shm_broadcast.py",
            ],
            "waits for a message in acquire_read",
        ),
        # "Waiting for 1 local, 0 remote core engine proc(s)": https://github.com/vllm-project/vllm/issues/17676
        (
            [f"poll@{SITE}/zmq/sugar/poll.py", f"wait_for_engine_startup@{SITE}/vllm/v1/engine/utils.py"],
            "waits for engine cores in wait_for_engine_startup",
        ),
        (
            [
                f"wait@{LIB}/multiprocessing/connection.py",
                f"wait_for_ready@{SITE}/vllm/v1/executor/multiproc_executor.py",
            ],
            "waits for its workers",
        ),
        ([f"getaddrinfo@{LIB}/socket.py", f"create_connection@{LIB}/socket.py"], "waits for the name of a host (DNS)"),
        ([f"read@{LIB}/ssl.py", f"recv@{SITE}/urllib3/response.py"], "waits for data from the network"),
        ([f"read@{SITE}/httpcore2/_backends/sync.py"], "waits for data from the network in read"),
        ([f"read@{SITE}/httpcore/_backends/sync.py"], "waits for data from the network in read"),
        # a build that was ended has left its lock behind: https://github.com/pytorch/pytorch/issues/189245
        ([f"wait@{SITE}/torch/utils/file_baton.py"], "waits for the lock of a file, which may be a stale one"),
        (
            [f"get_objects@{SITE}/ray/_private/worker.py", f"get@{SITE}/ray/_private/worker.py"],
            "waits for Ray in get_objects",
        ),
        ([f"_acquire@{SITE}/filelock/_unix.py", f"acquire@{SITE}/filelock/_api.py"], "waits for the lock of a file"),
        (
            [
                "acquire@<frozen importlib._bootstrap>",
                "_lock_unlock_module@<frozen importlib._bootstrap>",
                "<module>@/a/b.py",
            ],
            "waits for an import in <module> (/a/b.py:7)",
        ),
        (
            [f"wait@{LIB}/threading.py", "result@/a/b.py"],
            "waits for another thread in wait (lib/python3.12/threading.py:7), called by result (/a/b.py:7)",
        ),
        ([f"communicate@{LIB}/subprocess.py", "compile@/a/b.py"], "waits for a process"),
        (["load_file@/a/b/safetensors.py"], "is in load_file (a/b/safetensors.py:7)"),
    ],
)
def test_wait_is_named_by_the_innermost_function_that_is_known_to_wait(frames: list[str], text: str) -> None:
    wait = wait_of(stack(*frames))
    assert wait is not None
    assert wait.text.startswith(text)


def test_function_that_works_below_a_known_wait_is_named_itself() -> None:
    frames = [*(f"step_{n}@/a/model.py" for n in range(5)), f"run@{LIB}/threading.py"]
    wait = wait_of(stack(*frames))
    assert wait is not None
    assert wait.text == "is in step_0 (/a/model.py:7)"


def test_process_without_stacks_waits_for_nothing_known() -> None:
    assert wait_of(()) is None


def test_sockets_of_this_process_are_listed_with_their_queues() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as client, listener.accept()[0] as served:
            client.send(b"x" * 100)
            here, there = client.getsockname(), served.getsockname()
            lines = sockets_of(os.getpid())
    assert f"tcp 127.0.0.1:{there[1]} > 127.0.0.1:{here[1]} connected, 100 B unread" in lines
    assert f"tcp 127.0.0.1:{here[1]} > 127.0.0.1:{there[1]} connected, no data in either direction" in lines
    assert f"tcp 127.0.0.1:{address[1]} listening" in lines


def test_own_stacks_begin_with_the_main_thread_and_leave_out_observers() -> None:
    release = threading.Event()
    threads = [
        threading.Thread(target=release.wait, name=name) for name in ("phasebus observer", "AnyIO worker thread")
    ]
    for thread in threads:
        thread.start()
    found: list[tuple[str, ...]] = []
    reader = threading.Thread(target=lambda: found.append(own_stacks()))
    reader.start()
    reader.join()
    release.set()
    for thread in threads:
        thread.join()
    heads = [text.splitlines()[0] for text in found[0]]
    assert heads[0] == "MainThread:"
    assert "AnyIO worker thread:" in heads
    assert "phasebus observer:" not in heads


SLEEPER = """
import os, sys, threading, time
from phasebus.stack_dump import offer_stacks
offer_stacks()
def hold():
    time.sleep(1000)
threading.Thread(target=hold, daemon=True).start()
def load_weights():
    print(flush=True)
    time.sleep(1000)
if sys.argv[1] == "forked" and (pid := os.fork()):
    print(pid, flush=True)
    os.waitpid(pid, 0)
load_weights()
"""


@pytest.fixture
def sleeper(request: pytest.FixtureRequest) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, request.param], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2 if request.param == "forked" else 1)]  # in any order
    forked = sum(int(line) for line in lines if line.strip())
    yield forked or process.pid
    for pid in filter(None, (forked, process.pid)):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("sleeper", ["started", "forked"], indirect=True)
def test_process_offers_its_stacks_without_ptrace_and_goes_on(sleeper: int) -> None:
    for _ in range(2):
        found = offered_stacks(sleeper)
        assert found[0].splitlines()[0] == "main thread:"
        assert "load_weights" in found[0]
    os.kill(sleeper, 0)


@pytest.mark.parametrize("end", ["", "\n..."])
def test_main_thread_of_a_dump_is_the_last_one_unless_the_dump_is_cut(end: str) -> None:
    text = (
        'Thread 0x3 (most recent call first):\n  File "/x/phasebus/initializer/engines/vllm/inside/reporter.py", line 1 in r\n\n'
        'Current thread 0x2 (most recent call first):\n  File "b.py", line 2 in b\n\n'
        'Thread 0x1 [name] (most recent call first):\n  File "a.py", line 3 in a'
    )
    first, second = stacks._faulthandler_stacks(text + end)
    main, other = ("b.py", "a.py") if end else ("a.py", "b.py")
    assert first.startswith("main thread:")
    assert main in first
    assert other in second


def test_threads_of_a_dump_by_py_spy_begin_with_the_main_one() -> None:
    text = (
        "Process 7: python\nPython v3.11.7\n\n"
        'Thread 9 (idle): "phasebus reporter"\n    get (queue.py:171)\n'
        'Thread 7 (active+gil): "MainThread"\n    load (a b.py:12)\n    <module> (x.py:1)\n'
        "Thread 0x7F (idle)\n    poll (zmq.py)\n"
    )
    assert stacks._py_spy_threads(text) == (
        'MainThread:\n  File "a b.py", line 12 in load\n  File "x.py", line 1 in <module>',
        'phasebus reporter:\n  File "queue.py", line 171 in get',
        'thread 0x7F:\n  File "zmq.py", line 0 in poll',
    )


def test_process_without_a_handler_gets_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    assert offered_stacks(os.getpid()) == ()
    assert handled_signals(2**22 + 1) == set()


def test_offer_whose_signal_is_not_handled_any_more_gets_no_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "dump"
    file.write_bytes(b"")
    monkeypatch.setattr(stacks, "_offer_of", lambda pid: (str(file), signal.SIGRTMAX - 1))
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    assert offered_stacks(os.getpid()) == ()


def test_last_lines_are_those_of_the_process_where_they_are_marked(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("(Worker_TP0 pid=7000000) one\n(Worker_TP1 pid=8) two\n\x1b[1mthree\r(Worker_TP0 pid=7) 40%\n")
    assert last_lines(7_000_000, [log]) == ("(Worker_TP0 pid=7000000) one",)
    assert last_lines(0, [log]) == (
        "(Worker_TP0 pid=7000000) one",
        "(Worker_TP1 pid=8) two",
        "(Worker_TP0 pid=7) 40%",
    )
    assert last_lines(7_000_000, [tmp_path / "none.log"]) == ()
    assert last_lines(7_000_001, [log], ended=True) == ()


@pytest.mark.parametrize("length", range(65_500, 65_560, 7))
def test_last_lines_begin_with_no_rest_of_a_secret(tmp_path: Path, length: int) -> None:
    log = tmp_path / "engine.log"
    log.write_text(f"args: api_key=correct-horse-battery-staple, {'x' * length}\nthe end\n")
    assert last_lines(0, [log]) == ("the end",)
    log.write_text(f"args: {'y' * (length // 2)} api_key=correct-horse-battery-staple, {'x' * 16_350}\nthe end\n")
    assert "staple" not in "".join(last_lines(0, [log]))


def test_log_that_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert last_lines(0, [tmp_path / "fifo"]) == ()


def test_line_that_reports_a_full_disk_is_found() -> None:
    assert no_space(["a", "OSError: [Errno 28] No space left on device ", "b"]) is not None
    assert no_space(["all is well"]) is None


def suspect(name: str, sign: Sign = "idle", *, pid: int = 0, ended: int = 0, seconds: float = 0.0) -> Suspect:
    step = StepStarted(step="a" * 16, kind="engine_step", name=name, monotonic_ns=int(seconds * 1e9))
    return Suspect(step=step, process=name, pid=pid, sign=sign, seconds=9.0, ended_steps=ended)


def test_suspects_are_ordered_by_what_the_others_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = stack(f"barrier@{SITE}/torch/distributed/distributed_c10d.py")
    stacks_of = {1: waiting, 2: waiting, 3: stack("read_table@/a/b.py")}
    monkeypatch.setattr(evidence, "stacks_of", lambda pid: stacks_of.get(pid, ()))
    ordered = stuck_steps(
        [
            suspect("longest", pid=1, seconds=-1000.0, ended=5),
            suspect("behind", pid=2, ended=2),
            suspect("works on its own", pid=3, ended=9),
            suspect("stopped", "stopped"),
            suspect("gone", "gone"),
        ]
    )
    assert [each.name for each in ordered] == ["gone", "stopped", "works on its own", "behind", "longest"]


def test_rank_that_waits_for_peers_comes_before_the_core_and_the_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stacks of vLLM 0.32 with `--nnodes 2` whose second rank was never started."""
    stacks_of = {
        1: stack(f"poll@{SITE}/zmq/sugar/poll.py", f"wait_for_engine_startup@{SITE}/vllm/v1/engine/utils.py"),
        2: stack(
            f"select@{LIB}/selectors.py",
            f"wait@{LIB}/multiprocessing/connection.py",
            f"wait_for_ready@{SITE}/vllm/v1/executor/multiproc_executor.py",
        ),
        3: stack(f"_create_c10d_store@{SITE}/torch/distributed/rendezvous.py"),
    }
    monkeypatch.setattr(evidence, "stacks_of", lambda pid: stacks_of[pid])
    ordered = stuck_steps(
        [
            suspect("wait_for_engine_core", pid=1, seconds=1.0, ended=3),
            suspect("init_executor", pid=2, seconds=2.0, ended=1),
            suspect("init_device", pid=3, seconds=3.0, ended=9),
        ]
    )
    assert [each.name for each in ordered] == ["init device", "init executor", "wait for engine core"]
    assert all("has every rank been started" in each.reason for each in ordered)


@pytest.mark.parametrize(("function", "names"), [("select@/lib/python3.12/selectors.py", []), ("wait@/a/b.py", ["x"])])
def test_callback_that_awaits_without_blocking_the_event_loop_has_more_time(
    function: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "stacks_of", lambda pid: stack(function))
    step = StepStarted(step="a" * 16, kind="callback", name="x")
    found = Suspect(step=step, process="phasebus", pid=os.getpid(), sign="idle", seconds=9.0)
    assert [each.name.removeprefix("callback ") for each in stuck_steps([found], awaits=60.0)] == names
    assert len(stuck_steps([replace(found, seconds=61.0)], awaits=60.0)) == 1


def test_reason_asks_for_missing_ranks_if_all_processes_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "stacks_of", lambda pid: stack(f"barrier@{SITE}/torch/distributed/c10d.py"))
    (found,) = stuck_steps([suspect("init_device", pid=1)])
    assert "has every rank been started" in found.reason


def test_busy_process_only_waits_if_every_look_sees_it_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, working = stack(f"all_reduce@{SITE}/torch/distributed/c10d.py"), stack("forward@/a/model.py")
    looks = [waiting, waiting, working, waiting] * 2
    monkeypatch.setattr(evidence, "stacks_of", lambda pid: looks.pop() if pid == 1 else waiting)
    assert not only_wait([1], 0.0)
    assert only_wait([2], 0.0)


def test_evidence_that_cannot_be_collected_in_time_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(evidence, "_SECONDS", 0.01)
    monkeypatch.setattr(evidence, "sockets_of", lambda pid: (str(release.wait()),))
    monkeypatch.setattr(evidence, "stacks_of", lambda pid: 1 / 0)
    (found,) = stuck_steps([suspect("load_weights", pid=os.getpid())])
    release.set()
    assert found.sockets == ()
    assert found.stacks == ()


def test_last_lines_have_no_part_of_a_private_key(tmp_path: Path) -> None:
    kind = "PRIVATE KEY"
    key = [f"-----BEGIN {kind}-----", *(f"Zq9x{line:060}" for line in range(30)), f"-----END {kind}-----"]
    log = tmp_path / "log"
    log.write_text("\n".join(["first", *key, "waiting", "phasebus: its own"]) + "\n")
    assert last_lines(0, [log]) == ("first", MASK, "waiting")
    log.write_text("")
    assert last_lines(0, [log]) == ()


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM, 0, 999])
def test_offer_of_a_signal_with_another_meaning_is_ignored(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(stacks, "handled_signals", lambda _: {number})
    monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))
    descriptor = os.memfd_create(f"phasebus-stacks-{number}")
    try:
        assert stacks._offer_of(os.getpid()) != (f"/proc/{os.getpid()}/fd/{descriptor}", number)
        offered_stacks(os.getpid())
    finally:
        os.close(descriptor)
    assert number not in sent


def test_file_that_replaces_an_offer_meanwhile_is_not_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    monkeypatch.setattr(stacks, "_offer_of", lambda _: (str(precious), signal.SIGRTMIN))
    assert offered_stacks(os.getpid()) == ()
    assert precious.read_text() == "x"
