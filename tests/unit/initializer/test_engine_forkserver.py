"""The fork server, without vLLM: programs that fork themselves, and start processes through it."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import posix
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from phasebus import vllm_plugin
from phasebus.initializer.engines.vllm.inside.forkserver import begin, imported, patches, safety
from phasebus.initializer.engines.vllm.inside.forkserver.process import ForkContext
from phasebus.initializer.engines.vllm.inside.variables import FORKSERVER, STEPS_URL
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

PROGRAM = """\
import gc, itertools, json, logging, multiprocessing, os, random, resource, select, signal, socket, sys, threading, time
from phasebus.initializer.engines.vllm.inside.forkserver import begin, channel, process, safety
from phasebus.initializer.engines.vllm.inside.forkserver.process import ForkContext

begin._preloaded = lambda: ()

def state():
    return dict(
        parent=os.getppid(), environment=os.environ.get("X"), limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        umask=os.umask(0), cpus=sorted(os.sched_getaffinity(0)), random=random.random(), folder=os.getcwd(),
        blocked=signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, ()), priority=os.nice(0),
        ignored=[int(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) == signal.SIG_IGN],
        descriptors=sorted(os.listdir("/proc/self/fd")), threads=len(os.listdir("/proc/self/task")),
        frozen=gc.get_freeze_count(),
    )

def send(pipe):
    pipe.send(state())

def ask():
    context = ForkContext()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(sender,))
    process.start()
    sender.close()
    return receiver.recv() | {"pid": process.pid, "method": process._popen.method, "code": process.join() or process.exitcode}

def server():
    return next(int(line) for line in open(f"/proc/self/task/{os.getpid()}/children").read().split())

def show(**values):
    print(json.dumps(values), flush=True)

if __name__ == "__main__":
"""


PRINTING = """\
from phasebus.initializer.engines.vllm.inside.forkserver import begin
from phasebus.initializer.engines.vllm.inside.forkserver.process import ForkContext

begin._preloaded = lambda: ("printing",)
begin.fork_server()
for _ in range(2):
    process = ForkContext().Process(target=print, args=("forked",))
    process.start()
    process.join()
"""


def run(tmp_path: Path, body: str, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """Run a program; return what it shows, and the lines it logs."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + textwrap.indent(textwrap.dedent(body), "    "))
    ended = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path, **options
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout), ended.stderr.splitlines()


def test_a_process_is_a_fork_of_the_server_and_ends_with_its_own_exit_code(tmp_path: Path) -> None:
    shown, lines = run(
        tmp_path,
        """
        begin.fork_server()
        asked = ask()
        failed = ForkContext().Process(target=sys.exit, args=(7,))
        failed.start()
        failed.join()
        killed = ForkContext().Process(target=time.sleep, args=(1000,))
        killed.start()
        killed.kill()
        killed.join()
        show(asked=asked, server=server(), codes=[failed.exitcode, killed.exitcode])
        """,
    )
    assert shown["asked"]["parent"] == shown["server"]
    assert (shown["asked"]["method"], shown["asked"]["code"]) == ("forkserver", 0)
    assert shown["codes"] == [7, -signal.SIGKILL]
    assert lines == []


def test_a_fork_has_the_settings_of_its_caller_and_random_numbers_of_its_own(tmp_path: Path) -> None:
    shown, _ = run(
        tmp_path,
        """
        begin.fork_server()
        os.environ["X"] = "later"
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        os.umask(0o027)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        os.nice(3)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.mkdir("folder")
        os.chdir("folder")
        first, second = ask(), ask()
        os.umask(0o027)
        show(first=first, second=second, own=state())
        """,
    )
    same = ("environment", "limit", "umask", "cpus", "folder", "blocked", "priority", "ignored")
    assert [shown["first"][name] for name in same] == [shown["own"][name] for name in same]
    assert len({shown[name]["random"] for name in ("first", "second", "own")}) == 3


def test_a_process_forked_while_the_server_imports_has_its_objects_frozen(tmp_path: Path) -> None:
    shown, _ = run(
        tmp_path,
        """
        begin._preloaded = lambda: itertools.repeat("json")
        begin.fork_server()
        show(fork=ask())
        """,
    )
    assert shown["fork"]["frozen"] > 1000


def test_what_the_servers_imports_print_is_printed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "printing.py").write_text("print('imported', end='')")
    ended = subprocess.run(
        [sys.executable, "-c", PRINTING], capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path
    )
    assert (ended.stdout.count("imported"), ended.stdout.count("forked")) == (1, 2)


def test_a_server_released_by_its_owner_reports_exit_codes_and_forks_no_more(tmp_path: Path) -> None:
    shown, lines = run(
        tmp_path,
        """
        begin.fork_server()
        frozen = gc.get_freeze_count()
        other = ForkContext().Process(target=begin.release_server)  # it is not the owner
        other.start()
        other.join()
        processes = [ForkContext().Process(target=time.sleep, args=(1000,)) for _ in range(2)]
        for each in processes:
            each.start()
        ended = ForkContext().Process(target=sys.exit, args=(7,))
        ended.start()
        begin.release_server()
        program = lambda: open(f"/proc/{server()}/cmdline").read()
        while "remainder.py" not in program():
            time.sleep(0.01)
        for each in processes:
            each.kill()
            each.join()
        ended.join()
        show(codes=[each.exitcode for each in (*processes, ended)], method=ended._popen.method, server=server(), later=ask(), frozen=frozen,
            descriptors=sorted(os.listdir(f"/proc/{server()}/fd"), key=int),
            folders=open(f"/proc/{server()}/environ").read().count("LD_LIBRARY_PATH=/no/such/folder"))
        """,
        env=os.environ | {"LD_LIBRARY_PATH": "/no/such/folder"},
    )
    assert shown["folders"] == 1
    assert shown["codes"] == [-signal.SIGKILL, -signal.SIGKILL, 7]
    assert (shown["method"], shown["later"]["method"], shown["later"]["code"]) == ("forkserver", "spawn", 0)
    assert shown["frozen"] > 1000
    assert len(shown["descriptors"]) == 4  # the standard streams, and its owner
    assert lines == []


def test_a_server_closes_the_descriptors_of_a_request_that_lacks_some(tmp_path: Path) -> None:
    shown, _ = run(
        tmp_path,
        """
        begin.fork_server()
        reading, writing = os.pipe()
        socket.send_fds(channel._requests, [b"fork"], [writing])
        os.close(writing)
        show(readable=select.select([reading], [], [], 60)[0] == [reading], later=ask())
        """,
    )
    assert shown["readable"]
    assert shown["later"]["method"] == "forkserver"


def test_a_fork_has_no_descriptor_that_the_command_was_started_with(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        passed = fcntl.fcntl(file, fcntl.F_DUPFD, 77)
        shown, _ = run(tmp_path, "begin.fork_server()\nshow(own=state(), fork=ask())", pass_fds=[passed])
    os.close(passed)
    assert str(passed) in shown["own"]["descriptors"]
    assert str(passed) not in shown["fork"]["descriptors"]


@pytest.mark.parametrize("released", [False, True])
def test_the_server_runs_one_thread_and_ends_with_its_owner(tmp_path: Path, released: bool) -> None:
    program, release = tmp_path / "program.py", "begin.release_server(); " * released
    program.write_text(PROGRAM + f"    begin.fork_server(); {release}show(server=server()); time.sleep(1000)\n")
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        try:
            server = psutil.Process(json.loads(owner.stdout.readline())["server"])
            if released:
                wait_until(lambda: "remainder.py" in str(server.cmdline()), "it is released")
                assert server.cmdline()[0] == "phasebus fork server"
            assert server.num_threads() == 1
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                server.send_signal(number)  # as a terminal sends them to the whole process group
        finally:
            owner.kill()
    wait_until(lambda: has_ended(server), "the server has ended")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("os.kill(server(), signal.SIGKILL)", "the fork server"),
        ("process.BEGIN_SECONDS = 0.5; os.kill(server(), signal.SIGSTOP)", "the fork server does not answer"),
        ("process.BEGIN_SECONDS = 0.5; os.mkdir('hang')", "the fork server does not answer"),
        ("os.environ['OMP_DYNAMIC'] = 'true'", "OMP_DYNAMIC changed"),
        ("os.environ['LD_PRELOAD'] = '/no/such.so'", "LD_PRELOAD changed"),
    ],
    ids=["killed", "stopped", "a fork hangs", "a library's variable", "a library to preload"],
)
def test_a_process_that_cannot_be_forked_is_spawned_and_one_line_says_why(
    tmp_path: Path, harm: str, reason: str
) -> None:
    shown, lines = run(
        tmp_path,
        f"""
        confirm = process.server.confirm_begun
        process.server.confirm_begun = lambda: (time.sleep(1000) if os.path.exists("hang") else None, confirm())[1]
        begin.fork_server()
        {harm}
        show(asked=ask(), own=os.getpid())
        try:
            os.kill(server(), signal.SIGCONT)
        except (ProcessLookupError, StopIteration):
            pass
        """,
    )
    assert (shown["asked"]["parent"], shown["asked"]["method"]) == (shown["own"], "spawn")
    own = [line for line in lines if line.startswith("phasebus: ")]
    assert len(own) == 1
    assert "is spawned, not forked" in own[0]
    assert reason in own[0]


def test_a_process_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    shown, _ = run(
        tmp_path,
        """
        begin.fork_server()
        running = ForkContext().Process(target=time.sleep, args=(1000,))
        running.start()
        os.kill(server(), signal.SIGKILL)
        os.waitpid(-1, 0)
        alive = running.is_alive()
        running.kill()
        running.join()
        show(alive=alive, ended=not running.is_alive())
        """,
    )
    assert shown == {"alive": True, "ended": True}


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (
            "threading.Thread(target=time.sleep, args=(1000,), daemon=True, name='mine').start()",
            "the thread 'mine' runs",
        ),
        ("import _thread; _thread.start_new_thread(time.sleep, (1000,))", "1 native threads run"),
        ("sys.settrace(lambda *_: None)", "a debugger is attached"),
        ("torch.cuda.is_initialized = lambda: True", "a device is initialized (cuda)"),
        (
            "own = os.getpid(); torch.cuda._is_in_bad_fork = lambda: os.getpid() != own; safety._CUDA_DEVICES = ('/',)",
            "a device is initialized (cuda)",
        ),
        (
            "safety._loaded = lambda name: types.SimpleNamespace(cuDeviceGetCount=lambda _: 0) if 'cuda' in name else None",
            "a device is initialized (the driver of CUDA)",
        ),
        ("safety._DEVICES = ('/dev/zero',); device = open('/dev/zero')", "a device is open (/dev/zero)"),
    ],
    ids=["thread", "native thread", "debugger", "device", "device seen in the fork", "driver", "device file"],
)
def test_a_process_that_is_not_safe_to_fork_gets_no_server_and_one_line(
    tmp_path: Path, before: str, reason: str
) -> None:
    shown, lines = run(
        tmp_path,
        f"""
        import types
        torch = sys.modules["torch"] = types.SimpleNamespace(cuda=types.SimpleNamespace())
        {before}
        begin.fork_server()
        sys.settrace(None)
        show(available=channel.is_available(), children=open("/proc/thread-self/children").read())
        os._exit(0)
        """,
    )
    assert shown == {"available": False, "children": ""}
    assert [line.partition(reason)[1] for line in lines] == [reason]


@pytest.mark.parametrize(
    "before",
    [
        "own = os.getpid(); torch.cuda._is_in_bad_fork = lambda: os.getpid() != own; safety._CUDA_DEVICES = ()",
        "safety._loaded = lambda name: types.SimpleNamespace(cuDeviceGetCount=lambda _: 3) if 'cuda' in name else None",
        """
        import re
        safety._DEVICES, safety._MANAGED = ("/dev/zero",), re.compile("/dev/zero")
        device, safety._NVML = open("/dev/zero"), "libc.so.6"
        """,
        """
        import subprocess
        building = subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # it ends with this process
        threading.Thread(target=building.wait, name="reaper", daemon=True).start()
        while not safety._waiting_for_children(threading.enumerate()):
            time.sleep(0.01)
        """,
    ],
    ids=["counted without one", "driver that is only loaded", "held by the management library", "reaper of a build"],
)
def test_a_process_that_only_counted_devices_or_reaps_a_child_gets_a_server(tmp_path: Path, before: str) -> None:
    shown, lines = run(
        tmp_path,
        f"""
        import types
        torch = sys.modules["torch"] = types.SimpleNamespace(cuda=types.SimpleNamespace())
        {before}
        begin.fork_server()
        show(available=channel.is_available())
        os._exit(0)
        """,
    )
    assert (shown, lines) == ({"available": True}, [])


def test_openmp_and_inductor_get_the_changed_values_in_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    set_threads: list[int] = []
    inductor = SimpleNamespace(cpp=SimpleNamespace(dynamic_threads=False), compile_threads=8)
    torch = SimpleNamespace(set_num_threads=set_threads.append, get_num_threads=lambda: 1)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._inductor.config", inductor)
    cpu = min(os.sched_getaffinity(0))
    bound: list[list[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cpus: bound.append(list(cpus)))
    for name in ("OMP_NUM_THREADS", "OMP_PLACES", "OMP_PROC_BIND", *imported._INDUCTOR):
        monkeypatch.delenv(name, raising=False)  # importing vLLM sets some of them
    monkeypatch.setattr(imported, "_recorded", ())
    imported.record_environment()
    changed = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_PLACES": f"{{{cpu}}}",
        "OMP_PROC_BIND": "true",
        "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "VLLM_ANYTHING": "1",
    }
    imported.apply_changes(changed)
    assert (set_threads, bound[-1]) == ([1], [cpu])
    assert (inductor.cpp.dynamic_threads, inductor.compile_threads) == (True, 1)
    assert imported.unknown_changes({**os.environ, "VLLM_ANYTHING": "1"}) == []
    assert imported.unknown_changes({**os.environ, "KMP_AFFINITY": "x", "OMP_NUM_THREADS": "2"}) == ["KMP_AFFINITY"]


@pytest.fixture
def executed_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The value of LD_LIBRARY_PATH that this process was executed with: one folder, which exists."""
    monkeypatch.setattr(imported, "_recorded", ())
    monkeypatch.setitem(posix.environ, b"LD_LIBRARY_PATH", os.fsencode(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    return str(tmp_path)


@pytest.mark.parametrize("requested", ["before", "after"])
def test_a_variable_that_imports_have_set_is_no_change_of_the_requester(
    monkeypatch: pytest.MonkeyPatch, executed_folders: str, requested: str
) -> None:
    monkeypatch.delenv("TORCH_SET", raising=False)
    environments = {"before": dict(os.environ)}
    imported.record_environment()
    monkeypatch.setenv("TORCH_SET", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/no/such/folder:{executed_folders}:")  # as OpenCV does
    imported.record_environment()
    environments["after"] = dict(os.environ)
    assert imported.unknown_changes(environments[requested]) == []
    assert imported.unknown_changes({**os.environ, "TORCH_SET": "2"}) == ["TORCH_SET"]


@pytest.mark.parametrize("set_by", ["imports", "requester"])
def test_a_process_is_spawned_if_its_linker_would_search_another_folder(
    monkeypatch: pytest.MonkeyPatch, executed_folders: str, tmp_path: Path, set_by: str
) -> None:
    (tmp_path / "other").mkdir()
    other = f"{tmp_path / 'other'}:{executed_folders}"
    imported.record_environment()
    if set_by == "imports":
        monkeypatch.setenv("LD_LIBRARY_PATH", other)
        imported.record_environment()
    assert imported.unknown_changes({**os.environ, "LD_LIBRARY_PATH": other}) == ["LD_LIBRARY_PATH"]
    monkeypatch.setenv("LD_LIBRARY_PATH", other)
    imported.record_environment(executes_server=True)
    assert imported.unknown_changes(os.environ) == []


def test_metrics_of_a_forked_api_server_are_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prometheus_client import values

    monkeypatch.setattr(values, "ValueClass", values.MutexValue)
    imported.apply_changes({})
    assert values.ValueClass is values.MutexValue
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    imported.apply_changes(os.environ)
    assert getattr(values.ValueClass, "_multiprocess", False)


def test_api_servers_get_the_forking_context_and_others_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module, context = ModuleType("vllm.v1.utils"), ForkContext()
    module.__dict__["multiprocessing"] = multiprocessing
    patches._replace_spawning("multiprocessing", context, module)
    replaced = module.__dict__["multiprocessing"]
    assert replaced.get_context("spawn") is context
    assert replaced.get_context("fork") is multiprocessing.get_context("fork")
    assert multiprocessing.get_context("spawn") is not context
    assert replaced.Process is multiprocessing.Process


@pytest.mark.parametrize(
    ("value", "module", "forks"),
    [("1", "vllm.entrypoints.cli.main", 1), ("0", "vllm.entrypoints.cli.main", 0), ("1", "my_script", 0)],
)
def test_only_a_command_of_vllm_becomes_a_fork_server(
    monkeypatch: pytest.MonkeyPatch, value: str, module: str, forks: int
) -> None:
    forked: list[bool] = []
    monkeypatch.setattr(begin, "fork_server", lambda: forked.append(True))
    monkeypatch.setenv(STEPS_URL, "http://127.0.0.1:9/")
    monkeypatch.setenv(FORKSERVER, value)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(main=SimpleNamespace(__module__=module)))
    register = vllm_plugin.register
    assert callable(register)
    assert len(forked) == forks
    assert FORKSERVER not in os.environ


def test_priority_that_cannot_be_raised_again_is_a_reason_against_forking(monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for harmless in (None, own, own + 1):
        assert safety.reason_against_priority(harmless) is None
    monkeypatch.setattr(os, "getpriority", lambda *_: 15)
    changes: list[int] = []
    monkeypatch.setattr(os, "setpriority", lambda _kind, _process, value: changes.append(value))
    assert safety.reason_against_priority(0) is None
    assert changes == [0, 15]

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    assert safety.reason_against_priority(0) == ("its priority is lower than the command's (a niceness of 15, not 0)")
