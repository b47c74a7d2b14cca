"""A kept fork server, without vLLM: its messages, and what it does with a command that cannot run or has ended."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from phasebus.initializer.engines.vllm.inside.forkserver.kept import messages
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address

PROGRAM = """\
import json, os, select, signal, sys
from pathlib import Path
from phasebus.initializer.engines.vllm.inside.forkserver import begin
from phasebus.initializer.engines.vllm.inside.forkserver.kept import client, server
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address
from phasebus.initializer.engines.vllm.inside.forkserver.kept.commands import PythonCommand

begin.front_end_modules = lambda: ()
folder = Path(sys.argv[1])
address = Address(folder)
lock, listener = address.lock(), address.listen()
pid = os.fork()
if pid == 0:
    server.main(str(folder), listener.detach(), lock, None, None)
listener.close()
os.close(lock)
client.wait_until_imported(address)

def fork(number):
    command = PythonCommand(arguments=["-m"], script=None, module="pausing", name="pausing")
    descriptors = {0: 0, 1: 1, 2: 2, number: 2}
    return client.fork_command(
        command, os.environ, title="pausing", mask=frozenset(), address=address, descriptors=descriptors
    )

in_server = next(int(each) for each in os.listdir(f"/proc/{pid}/fd") if int(each) > 2)
try:
    fork(in_server)
    refused = None
except client.NotForkedError as error:
    refused = str(error)
command = fork(300)
os.kill(pid, signal.SIGSTOP)
os.waitpid(pid, os.WUNTRACED)
os.kill(command.pid, signal.SIGKILL)
ended = select.poll()
ended.register(command._process, select.POLLIN)
ended.poll()
command.close()
os.kill(pid, signal.SIGCONT)
forks = client.ask(address, "stop")["forks"]
print(json.dumps({"refused": refused, "forks": forks, "code": os.waitpid(pid, 0)[1]}))
"""

UNREADABLE = [b"", b"\xff", b"[]", b"[" * 50_000]


@pytest.mark.parametrize("content", UNREADABLE)
def test_message_that_is_no_object_is_an_error_and_its_descriptors_are_closed(content: bytes) -> None:
    client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    with client, server:
        socket.send_fds(client, [content], [writer])
        os.close(writer)
        with pytest.raises(messages.MessageError):
            messages.receive(server, time.monotonic() + 30)
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b""  # no writing end is open
    os.close(reader)


@pytest.mark.parametrize("content", UNREADABLE)
def test_body_that_is_no_object_is_an_error(content: bytes) -> None:
    descriptor = os.memfd_create("request")
    os.write(descriptor, content)
    with pytest.raises(messages.MessageError):
        messages.read_body(descriptor)
    os.close(descriptor)


def test_folder_without_locks_or_sockets_is_an_error_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    address, tried = Address(tmp_path), []

    def refuse(first: Any, *_: Any) -> None:
        tried.append(first)
        raise OSError(95, "Operation not supported")

    class Socket(socket.socket):
        bind = refuse

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        patched.setattr(socket, "socket", Socket)
        with pytest.raises(OSError, match="not supported"):
            address.lock()
        with pytest.raises(OSError, match="not supported"):
            address.listen()
    address.close()
    lock, listener = tried
    assert not os.path.realpath(f"/proc/self/fd/{lock}").startswith(str(tmp_path))
    assert listener.fileno() == -1


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("kept")
    folder.chmod(0o700)
    modules = tmp_path_factory.mktemp("modules")
    (modules / "pausing.py").write_text("import signal; signal.pause()")
    program = modules / "program.py"
    program.write_text(PROGRAM)
    environment = {"PATH": os.defpath, "PYTHONPATH": str(modules), "PHASEBUS_STATE_DIR": str(modules)}
    command = [sys.executable, str(program), str(folder)]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120).stdout)


def test_command_that_needs_a_descriptor_of_the_server_is_refused_with_the_reason(served: Any) -> None:
    assert served["refused"].endswith("are in use")


def test_server_outlives_a_command_that_ends_together_with_its_client(served: Any) -> None:
    assert (served["forks"], served["code"]) == (2, 0)
