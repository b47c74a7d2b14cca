"""A fork server that stays: whole commands are forked from it, as if they were executed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from phasebus.initializer.engines.vllm import forking
from phasebus.initializer.engines.vllm.inside.forkserver.kept import client, commands, environment, messages, starting
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address, AddressError
from phasebus.initializer.engines.vllm.inside.forkserver.kept.fingerprint import fingerprint
from tests.support.stub_engine import write_stub
from tests.support.waiting import wait_until


class Stub:
    """A stand-in for vLLM, with a fork server of its own.

    Args:
        folder: Where it is written to.
    """

    def __init__(self, folder: Path) -> None:
        self.script, self.environment = write_stub(folder)
        self.folder = folder
        self.address = Address(folder / "runtime")

    def start(self, *, owner: int | None = None, idle_seconds: float | None = None, niceness: int = 0) -> bool:
        return starting.start_server(
            self.address, self.environment, owner=owner, idle_seconds=idle_seconds, niceness=niceness
        )

    def fork(self, *arguments: str, module: bool = False) -> client.ForkedCommand | None:
        program = [sys.executable, "-m", "vllm.run"] if module else [self.script]
        command = commands.read_python_command(program[0], [*program, *arguments], self.environment)
        assert command is not None
        title = " ".join([*([] if module else [sys.executable]), *program, *arguments])
        return client.fork_command(
            command, self.environment, title=title, mask=frozenset(), address=self.address, seconds=60
        )

    def pid(self) -> int:
        state = client.ask(self.address, "status")
        assert state is not None
        return int(state["pid"])

    def run(self, *arguments: str, forked: bool, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the stand-in's command in a program of its own, forked or executed."""
        if not forked:
            program = [sys.executable, "-c", f"import os; os.execv({self.script!r}, {[self.script, *arguments]!r})"]
        else:
            program = [sys.executable, "-c", _FORKING, str(self.folder), self.script, *arguments]
        options.setdefault("env", self.environment)
        return subprocess.run(program, capture_output=True, text=True, timeout=120, check=False, **options)

    def stop(self) -> None:
        with contextlib.suppress(client.NotForkedError):
            client.ask(self.address, "stop")
        self.address.close()


_ACTOR = """\
import asyncio
from phasebus.initializer.engines.vllm.forked_host import fork_host

async def main():
    host = fork_host(None, "keep")
    print(host.pid, flush=True)
    try:
        await host.probe()
    except Exception as error:
        print(error, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""

_REPLICA = """\
import json, resource, time
import vllm.stub
from phasebus.initializer.engines.vllm.branching import fork_server_from_kept
from phasebus.initializer.engines.vllm.inside.forkserver.process import ForkContext

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (555, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    fork_server_from_kept()
    context = ForkContext()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=vllm.stub.send_state_of_worker, args=(sender,))
    process.start()
    print(json.dumps({**receiver.recv(), "core": process.pid, "core_method": process._popen.method}), flush=True)
    time.sleep(1000)
"""

_FORKING = """\
import os, sys
from pathlib import Path
from phasebus.initializer.engines.vllm.inside.forkserver.kept import client, commands
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address
command = commands.read_python_command(sys.argv[2], sys.argv[2:], os.environ)
title = " ".join([sys.executable, *sys.argv[2:]])
forked = client.fork_command(
    command, os.environ, title=title, mask=frozenset(), address=Address(Path(sys.argv[1], "runtime")), seconds=60
)
code = forked.wait()
if code < 0:
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    stub = Stub(tmp_path_factory.mktemp("stub"))
    assert stub.start()
    yield stub
    stub.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stub]:
    stub = Stub(tmp_path)
    yield stub
    stub.stop()


def test_a_forked_command_has_the_state_of_an_executed_one(stub: Stub, tmp_path: Path) -> None:
    with (tmp_path / "input").open("w+") as file:
        file.write("some input")
        file.flush()

        def limit() -> None:
            os.umask(0o027)
            os.nice(2)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])

        shown = []
        passed = fcntl.fcntl(file, fcntl.F_DUPFD, 55)
        for forked in (False, True):
            file.seek(0)
            ended = stub.run(
                "state",
                forked=forked,
                cwd=tmp_path,
                stdin=file,
                preexec_fn=limit,
                pass_fds=[passed],
            )
            assert ended.returncode == 0, ended.stderr
            shown.append(json.loads(ended.stdout))
        os.close(passed)
    executed, forked_state = shown
    assert executed.pop("random") != forked_state.pop("random")
    for state in shown:  # pipes have other names, and a listing of descriptors has one itself
        state["descriptors"] = sorted(number for number, name in state["descriptors"].items() if "/proc/" not in name)
        state["command"] = state["command"].replace("\0", " ").strip()
    own = {number for number in forked_state["descriptors"] if int(number) >= 400}  # reports the command's end
    forked_state["descriptors"] = [number for number in forked_state["descriptors"] if number not in own]
    assert len(own) == 1
    assert forked_state == executed


def test_a_forked_module_has_the_working_folder_on_its_path(stub: Stub) -> None:
    forked = stub.fork("exit", "3", module=True)
    assert forked is not None
    assert forked.wait() == 3
    forked.close()


@pytest.mark.parametrize(("arguments", "code"), [(("exit", "7"), 7), (("raise",), 1), (("exit", "0"), 0)])
def test_a_forked_command_ends_with_its_own_code_and_traceback(stub: Stub, arguments: list[str], code: int) -> None:
    executed, forked = (stub.run(*arguments, forked=each) for each in (False, True))
    assert (executed.returncode, forked.returncode) == (code, code)
    assert [line for line in executed.stderr.splitlines() if line.startswith("ValueError")] == [
        line for line in forked.stderr.splitlines() if line.startswith("ValueError")
    ]
    assert "front_end" not in forked.stderr.partition("vllm/stub.py")[2]


def test_signals_reach_a_forked_command_and_its_end_by_one_is_reported(stub: Stub) -> None:
    for number, code in ((signal.SIGTERM, 5), (signal.SIGKILL, -signal.SIGKILL)):
        forked = _waiting(stub)
        forked.send_signal(number)
        assert forked.wait() == code
        forked.send_signal(number)  # too late, and no error
        forked.close()


def test_a_command_whose_client_dies_is_terminated(stub: Stub) -> None:
    forked = _waiting(stub)
    process = psutil.Process(forked.pid)
    forked.close()
    wait_until(lambda: not process.is_running(), "it has ended")


def test_the_server_has_no_secret_and_no_descriptor_of_the_start_that_started_it(own: Stub, tmp_path: Path) -> None:
    own.environment |= {"HF_TOKEN": "hf_secret", "TRACEPARENT": "00-1-1-01", "ANYTHING": "else"}
    with (tmp_path / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        own.start()
    server = psutil.Process(own.pid())
    assert {"HF_TOKEN", "TRACEPARENT"}.isdisjoint(server.environ())
    assert str(tmp_path / "file") not in [each.path for each in server.open_files()]
    assert (server.cwd(), os.getsid(server.pid)) == ("/", os.getpgid(server.pid))
    assert server.parent() is None or server.parent() != psutil.Process()
    shown = json.loads(own.run("state", forked=True).stdout)
    assert (shown["environment"]["HF_TOKEN"], shown["environment"]["ANYTHING"]) == ("hf_secret", "else")


def test_what_imports_print_is_not_printed_by_a_command(own: Stub) -> None:
    own.environment.pop("PYTHONUNBUFFERED", None)
    Path(own.folder, "modules", "torch", "__init__.py").write_text("print('imported', end='')")
    own.start()
    ended = own.run("exit", "0", forked=True)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert own.address.log.read_text() == "imported"


def test_a_command_of_another_terminal_is_forked(own: Stub) -> None:
    Path(own.folder, "modules", "torch", "__init__.py").write_text(
        "import os\ncopied = os.environ.copy()\nfound = [each for each in os.environ.items() if each[0] == 'SEARCHED']\n"
    )
    own.environment |= {"TMUX_PANE": "%1", "SSH_CONNECTION": "::1 1 ::1 22", "PORT": "8000"}
    own.start()
    client.wait_until_imported(own.address)
    own.environment |= {"TMUX_PANE": "%2", "PORT": "8001"}
    del own.environment["SSH_CONNECTION"]
    forked = own.fork("exit", "3")
    assert forked is not None
    assert forked.wait() == 3
    forked.close()


def test_a_node_replaces_a_server_with_other_variables_and_only_that(
    own: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper", raising=False)
    torch = Path(own.folder, "modules", "torch", "__init__.py")
    torch.write_text("import os\nos.environ.get('READ')\nos.environ['OMP_SET_BY_IMPORT'] = '1'\n")
    own.start()
    servers = []
    for value in ("", "1", "1", "2"):
        client.wait_until_imported(own.address)
        forking.begin_kept({**own.environment, **({"READ": value} if value else {}), "OTHER": value})
        servers.append(own.pid())
    assert len(set(servers)) == 3
    assert servers[1] == servers[2]


def test_twenty_starts_at_once_share_one_server(own: Stub) -> None:
    started: list[bool] = []
    codes: list[int] = []

    def begin() -> None:
        started.append(own.start())
        forked = own.fork("exit", "9")
        assert forked is not None
        codes.append(forked.wait())
        forked.close()

    threads = [threading.Thread(target=begin) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sorted(started), codes) == ([False] * 19 + [True], [9] * 20)


def test_a_start_beside_another_one_waits_until_that_ones_server_listens(
    own: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: waiting.set())
    monkeypatch.setattr(starting, "time", clock)
    lock = own.address.lock()
    assert lock is not None
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(own.start)
        assert waiting.wait(60)
        assert not started.done()
        with own.address.listen():
            assert not started.result(60)
        own.address.remove()
        os.close(lock)


def test_a_command_that_inherits_a_socket_is_forked_once_the_server_has_imported(
    own: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested, receive = own.folder / "requested", messages.receive
    (own.folder / "modules" / "torch" / "__init__.py").write_text(
        f"import os, time\nwhile not os.path.exists({str(requested)!r}): time.sleep(0.01)\n"
    )

    def note_and_receive(connection: socket.socket, deadline: float) -> Any:
        requested.touch()
        return receive(connection, deadline)

    monkeypatch.setattr(messages, "receive", note_and_receive)
    own.start()
    with contextlib.ExitStack() as closed_at_last:
        for end in socket.socketpair():
            closed_at_last.callback(os.close, fcntl.fcntl(end.detach(), fcntl.F_DUPFD, 300))
        forked = own.fork("exit", "7")
    assert forked is not None
    assert forked.wait() == 7
    forked.close()


def test_a_process_that_ignores_the_ends_of_its_children_can_start_a_server(own: Stub) -> None:
    program = f"""\
import signal
from pathlib import Path
from {Address.__module__} import Address
from {starting.__name__} import start_server
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
assert start_server(Address(Path({str(own.folder / "runtime")!r})), {own.environment!r}, owner=None, idle_seconds=None)
"""
    subprocess.run([sys.executable, "-c", program], timeout=120, check=True)
    assert client.wait_until_imported(own.address)["imported"]


@pytest.mark.parametrize("change", ["variable", "source", "imported file"])
def test_a_command_that_needs_other_imports_is_refused_and_named(own: Stub, tmp_path: Path, change: str) -> None:
    other = tmp_path / "other.py"
    other.write_text("")
    Path(own.folder, "modules", "torch", "__init__.py").write_text(
        f"import sys\nsys.path.append({str(tmp_path)!r})\nimport other\n"
    )
    own.start()
    client.wait_until_imported(own.address)
    if change == "variable":
        own.environment["OMP_NUM_THREADS"] = "7"
    elif change == "imported file":
        os.utime(other, ns=(2**60, 2**60))
    else:
        Path(own.folder, "modules", "vllm", "__init__.py").write_text("upgraded = True")
    with pytest.raises(
        client.NotForkedError, match=r"OMP_NUM_THREADS|other.py was edited|installed or edited"
    ) as raised:
        own.fork("exit", "0")
    assert raised.value.outdated


def test_a_server_that_is_killed_leaves_its_command_running_and_the_code_known(own: Stub) -> None:
    own.start()
    forked = _waiting(own)
    os.kill(own.pid(), signal.SIGKILL)
    wait_until(lambda: own.address.connect() is None, "the server is gone")
    forked.send_signal(signal.SIGTERM)
    assert forked.wait() == 5
    forked.close()
    assert own.start()  # its lock was released


def test_a_request_that_raises_in_the_server_is_refused_and_the_server_goes_on(stub: Stub) -> None:
    stub.start()
    state = client.wait_until_imported(stub.address)
    connection = stub.address.connect()
    assert connection is not None
    with connection, Path(os.devnull).open() as file:
        request = {"request": "fork", "fingerprint": state["fingerprint"], "priority": -(10**30)}
        messages.send(connection, request, [file.fileno()])
        answer, _ = messages.receive(connection, time.monotonic() + 60)
    assert str(answer["refused"]).startswith("OverflowError: ")
    assert stub.pid() == state["pid"]


def test_a_server_that_hangs_is_an_error_of_the_request(own: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    own.start()
    client.wait_until_imported(own.address)
    assert not own.address.is_importing()
    server = own.pid()
    os.kill(server, signal.SIGSTOP)
    monkeypatch.setattr(client, "_ANSWER_SECONDS", 0.2)
    command = commands.read_python_command(own.script, [own.script, "exit", "0"], own.environment)
    assert command is not None
    with pytest.raises(client.NotForkedError, match="does not answer"):
        client.fork_command(command, own.environment, title="", mask=frozenset(), address=own.address)
    os.kill(server, signal.SIGKILL)


@pytest.mark.parametrize(
    ("fails", "reason"),
    [("raise MemoryError", "memory"), ("os.getpid() == server or time.sleep(1000)", "does not answer")],
    ids=["out of memory", "a fork hangs"],
)
def test_a_request_whose_fork_fails_is_an_error_and_the_server_goes_on(
    own: Stub, monkeypatch: pytest.MonkeyPatch, fails: str, reason: str
) -> None:
    fails = fails.replace("raise MemoryError", "raise OSError(12, 'Cannot allocate memory')")
    Path(own.folder, "modules", "torch", "__init__.py").write_text(f"""\
import os, time
fork, server, calls = os.fork, os.getpid(), []

def failing():
    calls.append(None)
    if len(calls) == 1:
        return fork()
    if "raise" in {fails!r}:
        {fails}
    pid = fork()
    {fails}
    return pid

os.fork = failing
""")
    own.start()
    client.wait_until_imported(own.address)
    monkeypatch.setattr(client, "_ANSWER_SECONDS", 1.0)
    command = commands.read_python_command(own.script, [own.script, "exit", "0"], own.environment)
    assert command is not None
    with pytest.raises(client.NotForkedError, match=reason):
        client.fork_command(command, own.environment, title="", mask=frozenset(), address=own.address)
    monkeypatch.undo()
    server = psutil.Process(own.pid())
    wait_until(lambda: not server.children(), "no fork is left")


def test_the_command_line_starts_shows_uses_and_stops_a_server(tmp_path: Path) -> None:
    script, environment = write_stub(tmp_path)
    environment["PHASEBUS_STATE_DIR"] = str(tmp_path / "state")

    def phasebus(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "phasebus.initializer.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)

    try:
        assert phasebus("forkserver", "status").returncode == 1
        assert "The fork server" in phasebus("forkserver", "start", "--idle=5m").stdout
        first = json.loads(phasebus("forkserver", "status", "--json").stdout)
        assert (first["idle_seconds"], first["forks"]) == (300, 0)
        assert phasebus("run", "--port=0", "--", script, "exit", "7").returncode == 7
        assert json.loads(phasebus("forkserver", "status", "--json").stdout)["forks"] == 1
        environment["OMP_NUM_THREADS"] = "3"  # does not fit: executed, and one line says why
        other = phasebus("run", "--port=0", "--", script, "exit", "7")
        assert (other.returncode, other.stderr.count("executed, not forked: other values of OMP_NUM_THREADS")) == (7, 1)
        assert phasebus("run", "--port=0", "--forkserver=keep", "--", script, "exit", "7").returncode == 7
        second = json.loads(phasebus("forkserver", "status", "--json").stdout)
        assert (second["pid"] != first["pid"], second["forks"]) == (True, 1)
        assert phasebus("run", "--port=0", "--no-forkserver", "--", script, "exit", "7").returncode == 7
        assert json.loads(phasebus("forkserver", "status", "--json").stdout)["forks"] == 1
    finally:
        stopped = phasebus("forkserver", "stop")
    assert f"The fork server {second['pid']} ends" in stopped.stdout
    wait_until(lambda: not psutil.pid_exists(second["pid"]) and not psutil.pid_exists(first["pid"]), "both have ended")
    assert phasebus("forkserver", "stop").stdout == "There is no fork server.\n"


def test_a_server_that_is_killed_before_it_forks_is_an_error_of_the_request(own: Stub) -> None:
    Path(own.folder, "modules", "torch", "__init__.py").write_text("import time; time.sleep(1000)")
    own.start()
    lock = next(Path(own.folder, "runtime").glob("*.lock"))
    servers: list[int] = []

    def find_server() -> bool:  # not at once: its descriptors cannot be listed while it is executed
        found = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit() and _holds(each, lock))
        servers.extend(pid for pid in found if pid != os.getpid())
        return bool(servers)

    wait_until(find_server, "the server runs")
    threading.Timer(0.5, os.kill, (servers[0], signal.SIGKILL)).start()
    with pytest.raises(client.NotForkedError):
        own.fork("exit", "0")


def test_a_server_that_imports_ends_with_the_other_end_of_its_pipe(own: Stub) -> None:
    (own.folder / "modules" / "vllm" / "__init__.py").write_text("import time\nwhile True: time.sleep(0.01)\n")
    ends, pipe = os.pipe()
    own.start(owner=ends)
    wait_until(lambda: own.address.importing_process() is not None, "it imports")
    server = psutil.Process(own.address.importing_process())
    os.close(ends)
    os.close(pipe)
    wait_until(lambda: _has_ended(server), "it ends")
    lock = own.address.lock()
    assert lock is not None
    os.close(lock)


def _holds(process: Path, lock: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(os.path.realpath(each) == str(lock) for each in Path(process, "fd").iterdir())
    return False


def test_command_has_its_own_priority_or_is_not_forked_from_a_server_with_a_lower_one(own: Stub) -> None:
    own.start(niceness=3)
    wanted = psutil.Process().nice()
    reason = None
    try:
        running = _waiting(own)
    except client.NotForkedError as error:
        reason = str(error)
    else:
        assert psutil.Process(running.pid).nice() == wanted
        running.send_signal(signal.SIGTERM)
        assert running.wait() == 5
    raising = f"import os; os.nice(3); os.setpriority(os.PRIO_PROCESS, 0, {wanted})"
    may_raise = subprocess.run([sys.executable, "-c", raising], stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert reason == (
        None if may_raise else f"its priority is lower than the command's (a niceness of {wanted + 3}, not {wanted})"
    )
    assert psutil.Process(own.pid()).nice() == wanted + 3


@pytest.mark.parametrize("end", ["stop", "SIGTERM", "idle", "owner", "pipe"])
def test_a_server_ends_when_it_should_and_leaves_its_commands_running(own: Stub, end: str) -> None:
    ends, pipe = os.pipe()
    with subprocess.Popen(["sleep", "1000"]) as owner:
        process = os.pidfd_open(owner.pid)
        own.start(owner={"owner": process, "pipe": ends}.get(end), idle_seconds=0.3 if end == "idle" else None)
        running = None if end == "idle" else _waiting(own)
        state = client.ask(own.address, "stop" if end == "stop" else "status")
        owner.kill()
    for each in (ends, pipe, process):
        os.close(each)
    if state is not None and end == "SIGTERM":
        os.kill(state["pid"], signal.SIGTERM)
    wait_until(lambda: own.address.connect() is None, "it accepts no request")
    wait_until(lambda: not list((own.folder / "runtime").glob("*.sock")), "its socket is removed")
    if running is not None:
        running.send_signal(signal.SIGTERM)
        assert running.wait() == 5
        running.close()
    if state is not None:
        wait_until(lambda: not psutil.pid_exists(state["pid"]), "it has ended")


@pytest.mark.parametrize(
    ("imported", "reason"),
    [
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(1000,), daemon=True, name='m').start()",
            "'m'",
        ),
        ("import socket; pair = socket.socketpair()", "opened a connection"),
        ("import multiprocessing; lock = multiprocessing.Lock()", "a lock of processes"),
        ("import tempfile; folder = tempfile.TemporaryDirectory(prefix='imported')", "a temporary folder .*imported"),
        ("import tempfile; file = tempfile.NamedTemporaryFile(prefix='imported')", "a file for writing .*imported"),
    ],
    ids=["thread", "connection", "lock", "temporary folder", "written file"],
)
def test_a_server_whose_imports_are_not_safe_to_fork_refuses_and_ends(own: Stub, imported: str, reason: str) -> None:
    Path(own.folder, "modules", "torch", "__init__.py").write_text(imported)
    own.start()
    with pytest.raises(client.NotForkedError, match=reason):
        own.fork("exit", "0")
    wait_until(lambda: own.address.connect() is None, "it has ended")


def test_a_server_whose_imports_append_to_a_log_and_clean_up_is_safe(own: Stub, tmp_path: Path) -> None:
    Path(own.folder, "modules", "torch", "__init__.py").write_text(f"""\
import logging, mmap, tempfile
logging.getLogger("torch").addHandler(logging.FileHandler({str(tmp_path / "log")!r}))
with tempfile.TemporaryDirectory(), tempfile.TemporaryFile():
    private = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE)
source = open(__file__)
""")
    own.start()
    forked = own.fork("exit", "3")
    assert forked is not None
    assert forked.wait() == 3
    forked.close()


def test_a_suspended_run_suspends_its_forked_command_and_goes_on_with_it(own: Stub, tmp_path: Path) -> None:
    own.start()
    client.wait_until_imported(own.address)
    command = [sys.executable, "-m", "phasebus.initializer.cli", "run", "--port=0", "--", own.script, "wait"]
    environment = {**own.environment, "PHASEBUS_STATE_DIR": str(tmp_path / "state")}
    with (
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as run,
        contextlib.ExitStack() as killed_at_last,
    ):
        killed_at_last.callback(run.kill)
        assert run.stdout is not None
        forked = psutil.Process(int(run.stdout.readline().split()[1]))
        assert forked.ppid() == own.pid()
        wait_until(lambda: {signal.SIGTSTP} <= set(_caught(run.pid)), "run handles SIGTSTP")
        wait_until(lambda: signal.SIGTERM in _caught(forked.pid), "the command handles SIGTERM")
        run.send_signal(signal.SIGTSTP)
        wait_until(lambda: psutil.Process(run.pid).status() == psutil.STATUS_STOPPED, "run is suspended", seconds=30)
        wait_until(lambda: forked.status() == psutil.STATUS_STOPPED, "the command is suspended", seconds=30)
        run.send_signal(signal.SIGCONT)
        wait_until(lambda: forked.status() != psutil.STATUS_STOPPED, "the command goes on")
        run.send_signal(signal.SIGTERM)
        wait_until(lambda: run.poll() is not None, "run ends")
    assert run.returncode == 5


@contextlib.contextmanager
def _running(own: Stub, program: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that uses the fork server of `own`; it is killed at last."""
    torch = Path(own.folder, "modules", "torch", "__init__.py")
    torch.write_text("threads = 1\ndef set_num_threads(number):\n    global threads\n    threads = number\n")
    torch.open("a").write("def get_num_threads():\n    return threads\n")
    torch.open("a").write("import os\nos.environ['LD_LIBRARY_PATH'] = '/no/such/folder:'\n")  # as OpenCV does
    environment = {**own.environment, "OMP_NUM_THREADS": "3", "HF_TOKEN": "hf_secret"}
    script = own.folder / "program.py"
    script.write_text(program)
    with (
        subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True) as running,
        contextlib.ExitStack() as killed_at_last,
    ):
        killed_at_last.callback(running.kill)
        yield running


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # where nothing waits for orphans
    except psutil.NoSuchProcess:
        return True


def test_an_engine_in_a_fork_answers_its_actor_and_ends_when_that_is_killed(own: Stub) -> None:
    with _running(own, _ACTOR) as actor:
        assert actor.stdout is not None
        engine = psutil.Process(int(actor.stdout.readline()))
        assert engine.ppid() == own.pid()
        assert "check_health" in actor.stdout.readline()  # it has no engine yet
        server = engine.children()[0]
    for process in (engine, server):
        wait_until(lambda process=process: _has_ended(process), "it ends")  # type: ignore[misc]
    assert own.pid()  # it stays


def test_processes_of_a_replica_have_its_own_state_and_end_when_it_is_killed(own: Stub) -> None:
    with _running(own, _REPLICA) as replica:
        assert replica.stdout is not None
        state = json.loads(replica.stdout.readline())
        core, worker, kept = psutil.Process(state["core"]), psutil.Process(state["pid"]), psutil.Process(own.pid())
        server = worker.parent()
        assert server is not None
        assert (core.parent(), server.ppid()) == (server, kept.pid)
        assert (state["core_method"], state["method"]) == ("forkserver", "forkserver")
        assert (state["environment"]["HF_TOKEN"], state["environment"]["OMP_NUM_THREADS"]) == ("hf_secret", "3")
        assert {"HF_TOKEN", "OMP_NUM_THREADS"}.isdisjoint(kept.environ())
        assert state["limit"] == 555
        assert {"200", "202"}.isdisjoint(state["descriptors"])  # the server's end of its socket, and its owner
    for each in (core, worker, server):
        wait_until(lambda each=each: _has_ended(each), "it ends")  # type: ignore[misc]
    assert own.pid() == kept.pid  # it stays


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("personality", "0x0040000"),  # ADDR_NO_RANDOMIZE
        ("prctl", "38, 1, 0, 0, 0"),  # PR_SET_NO_NEW_PRIVS
        ("set_mempolicy", "1, ctypes.byref(ctypes.c_ulong(1)), 64"),  # MPOL_PREFERRED
    ],
)
def test_a_process_that_a_fork_cannot_be_like_has_another_key(call: str, arguments: str) -> None:
    if call == "set_mempolicy" and platform.machine() != "x86_64":
        pytest.skip(
            f"the C library has no set_mempolicy, and its number is known for x86_64 only, not {platform.machine()}"
        )
    function = "syscall(238, " if call == "set_mempolicy" else f"{call}("
    program = f"""\
import ctypes, os
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import key
before = key()
assert before == key()
failed = ctypes.CDLL(None, use_errno=True).{function}{arguments})
print(f"refused: {{os.strerror(ctypes.get_errno())}}" if failed < 0 else key() != before)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    result = ended.stdout.strip()
    if result.startswith("refused"):
        pytest.skip(f"the kernel, or a seccomp filter, does not permit {call}({arguments}): {result}")
    assert result == "True"


def test_a_folder_that_others_may_use_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir(mode=0o755)
    with pytest.raises(AddressError, match="private"):
        Address(tmp_path / "runtime")
    address = Address(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    address.close()


def test_the_fingerprint_changes_with_an_edited_source(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("a = 1")
    before = fingerprint({"PYTHONPATH": str(tmp_path)})
    os.utime(tmp_path / "module.py", ns=(2**60, 2**60))
    assert fingerprint({"PYTHONPATH": str(tmp_path)}) != before


@pytest.mark.parametrize(
    ("content", "arguments", "accepted"),
    [
        (f"#!{sys.executable}\nfrom vllm.entrypoints.cli.main import main\n", ["serve"], True),
        (f"#!{sys.executable}\nfrom vllm.entrypoints.cli.main import main\n", ["snapshot"], False),
        (f"#!{sys.executable}\nimport vllm\n", ["serve"], False),
        (f"#!{sys.executable} -I\nfrom vllm.entrypoints.cli.main import main\n", ["serve"], False),
        ("#!/usr/bin/python3\nfrom vllm.entrypoints.cli.main import main\n", ["serve"], False),
        ("#!/bin/sh\nexec vllm serve\n", ["serve"], False),
        ("", [], False),
    ],
)
def test_only_a_console_script_of_vllm_with_this_python_is_forked(
    tmp_path: Path, content: str, arguments: list[str], accepted: bool
) -> None:
    script = tmp_path / "vllm"
    script.write_text(content)
    script.chmod(0o755)
    assert (commands.read_python_command(str(script), ["vllm", *arguments], {}) is not None) == accepted


def test_variables_that_are_read_are_compared_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_read", set())
    monkeypatch.setattr(environment, "_initial", {"READ": "1", "HOME": "/a", "OMP_X": "1", "HF_TOKEN": "a"})
    environment._read.update({"READ", "HF_TOKEN", "PATH"})
    same = {"READ": "1", "HOME": "/b", "OMP_X": "1", "HF_TOKEN": "b", "PATH": "/c"}
    assert environment.differences(same) == []
    assert environment.differences({**same, "READ": "2", "OMP_X": "2"}) == ["OMP_X", "READ"]


def test_variables_of_one_worker_of_ray_do_not_need_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"RAY_JOB_ID": "1", "RAY_RAYLET_PID": "1", "CUDA_VISIBLE_DEVICES": "0", "PYTHONBREAKPOINT": "a"}
    monkeypatch.setattr(environment, "_read", set(own))
    monkeypatch.setattr(environment, "_initial", own)
    other = {"RAY_JOB_ID": "2", "RAY_RAYLET_PID": "2", "CUDA_VISIBLE_DEVICES": "1", "PYTHONBREAKPOINT": "b"}
    assert environment.differences(other) == []
    of_ray = {"OMP_NUM_THREADS": "1", "RAY_CLIENT_MODE": "0", "LD_PRELOAD": ""}
    imported, later = forking.applied_later({**of_ray, "A": "b"})
    assert (imported, later) == ({"A": "b"}, of_ray)
    assert forking.applied_later({"LD_PRELOAD": "/lib/a.so"}) == ({"LD_PRELOAD": "/lib/a.so"}, {})


def _waiting(stub: Stub) -> client.ForkedCommand:
    """Return a forked command that waits for a signal."""
    forked = stub.fork("wait")
    assert forked is not None
    process = psutil.Process(forked.pid)
    wait_until(lambda: signal.SIGTERM in _caught(process.pid), "it handles SIGTERM")
    return forked


def _caught(pid: int) -> list[int]:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    mask = int(line.split()[1], 16)
    return [number for number in range(1, 65) if mask >> (number - 1) & 1]
