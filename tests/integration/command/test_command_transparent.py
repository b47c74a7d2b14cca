"""`phasebus run` beside the bare command: nothing that a command can see of its start, or its caller of its end, differs."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from phasebus.telemetry.journal import read_journal
from tests.support.programs import without
from tests.support.waiting import wait_until

RUN = [sys.executable, "-m", "phasebus.initializer.cli", "run", "--port", "0", "--"]


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path / "state"))
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def ended(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    options = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.run(command, capture_output=True, check=False, timeout=120, **options)


def own_lines(output: bytes) -> list[str]:
    return [line for line in output.decode().splitlines() if not line.startswith(("phasebus: `", "  in the phase"))]


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        "exit 3",
        "echo out; echo err >&2; exit 255",
        "kill -TERM $$",
        "kill -KILL $$",
        "kill -SEGV $$",
        "trap '' TERM; kill -TERM $$; exit 4",
        "cat; exit 5",
        "ps -o pgid= -p $$ | grep -q $(ps -o pgid= -p $PPID)",
        "umask; ulimit -a; pwd",
        "grep -oE '^Sig(Blk|Ign|Cgt):.*[0-9a-f]{8}$' /proc/self/status | sed -E 's/.{9}(.{7})$/\\1/'",  # 1 to 28: the C library has its own
    ],
)
def test_output_and_exit_code_are_those_of_the_bare_command(script: str) -> None:
    bare, observed = (ended([*prefix, "sh", "-c", script], input=None) for prefix in ([], RUN))
    assert (observed.returncode, observed.stdout) == (bare.returncode, bare.stdout)
    assert own_lines(observed.stderr) == own_lines(bare.stderr)


def test_a_script_without_an_interpreter_line_runs_as_in_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo got $1; exit 6\n")
    script.chmod(0o755)
    observed = ended([*RUN, str(script), "x"])
    assert (observed.returncode, observed.stdout) == (6, b"got x\n")


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [("no-such-command", 127, "is it installed"), ("/no/such", 127, "No such file"), ("/etc/passwd", 126, "denied")],
)
def test_a_command_that_cannot_be_executed_ends_as_in_a_shell(command: str, code: int, reason: str) -> None:
    observed = ended([*RUN, command])
    assert observed.returncode == code
    (line,) = observed.stderr.decode().splitlines()
    assert line.startswith(f"phasebus: cannot execute {command!r}")
    assert reason in line


@pytest.mark.parametrize("option", ["--prot", "--verbos", "--hots"])
def test_a_misspelled_option_is_an_error_and_not_the_command(option: str) -> None:
    observed = ended([*RUN[:-3], option, "0", "--", "true"])
    assert observed.returncode == 2
    assert f"No such option '{option}'" in observed.stderr.decode()


def test_options_after_the_command_are_its_own() -> None:
    assert ended([*RUN[:-1], "echo", "--port", "1", "--help", "--"]).stdout == b"--port 1 --help --\n"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_standard_streams_that_are_closed_are_closed_for_the_command(tmp_path: Path, closed: tuple[int, ...]) -> None:
    seen = tmp_path / "seen"
    probe = f"for n in 0 1 2; do if [ -e /proc/self/fd/$n ]; then echo $n; fi; done > {seen}.tmp; mv {seen}.tmp {seen}"
    script = f"({probe}) 9>/dev/null; exit 7"
    closing = " ".join(f"{number}>&-" for number in closed)
    results = []
    for prefix in ([], RUN):
        quoted = " ".join(f"'{part}'" for part in prefix)
        code = subprocess.call(["bash", "-c", f"{quoted} sh -c '{script}' {closing}"], stderr=subprocess.DEVNULL)
        results.append((code, seen.read_text()))
    assert results[0] == results[1]


def test_inherited_descriptors_reach_the_command(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("handed down")
    with (tmp_path / "file").open() as file:
        observed = ended([*RUN, "bash", "-c", f"cat <&{file.fileno()}"], pass_fds=[file.fileno()])
    assert observed.stdout == b"handed down"


def test_the_environment_gains_nothing_but_tracing_variables() -> None:
    environment = {"PATH": os.environ["PATH"], "PHASEBUS_STATE_DIR": os.environ["PHASEBUS_STATE_DIR"], "LANG": "C"}
    bare, observed = (_variables(ended([*prefix, "env", "-0"], env=environment).stdout) for prefix in ([], RUN))
    assert {name: observed[name] for name in bare} == bare
    allowed = ("OTEL_", "PHASEBUS_", "TRACEPARENT", "NO_PROXY", "no_proxy", "VLLM_")
    assert [name for name in observed.keys() - bare.keys() if not name.startswith(allowed)] == []


def _variables(listed: bytes) -> Mapping[str, str]:
    return dict(line.decode().split("=", 1) for line in listed.split(b"\0") if line)


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_signals_that_were_ignored_stay_ignored(ignored: signal.Signals) -> None:
    name = ignored.name.removeprefix("SIG")
    script = f"kill -{name} $$; kill -{name} $PPID; sleep 0.2; echo survived"
    observed = ended(["sh", "-c", f'trap "" {name}; exec "$@"', "sh", *RUN, "sh", "-c", script])
    assert (observed.returncode, observed.stdout) == (0, b"survived\n")


FORWARDED = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "WINCH"]


@pytest.mark.parametrize("name", FORWARDED)
def test_signals_reach_the_command(tmp_path: Path, name: str) -> None:
    up = tmp_path / "up"
    script = f"trap 'echo got {name}; exit 9' {name}; touch {up}; while :; do sleep 0.05; done"
    with subprocess.Popen([*RUN, "sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        wait_until(up.exists, "the command is up")
        process.send_signal(getattr(signal, f"SIG{name}"))
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (9, f"got {name}\n")


def test_a_command_whose_phasebus_is_killed_gets_sigterm(tmp_path: Path) -> None:
    up = tmp_path / "up"
    script = f"trap 'echo ended; exit' TERM; touch {up}; while :; do sleep 0.05; done"
    with subprocess.Popen([*RUN, "sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        wait_until(up.exists, "the command is up")
        process.kill()
        output, _ = process.communicate(timeout=60)  # up to the end of the command
    assert (process.returncode, output) == (-signal.SIGKILL, "ended\n")


def test_keys_of_a_terminal_reach_the_command_once(tmp_path: Path) -> None:
    up = tmp_path / "up"
    later = 'n=0; while [ $n -lt 5 ]; do sleep 0.2; [ -n "$got" ] && n=$((n + 1)); done'  # time for a second one
    script = f"trap 'echo interrupted; got=1' INT; touch {up}; {later}; exit 8"
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover  # the child
        os.execv(RUN[0], [*RUN, "sh", "-c", script])
    wait_until(up.exists, "the command is up")
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    output = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 8
    assert output.splitlines().count("interrupted") + output.splitlines().count("^Cinterrupted") == 1


def test_as_the_first_process_of_a_container_it_reaps_orphans(tmp_path: Path) -> None:
    if ended(["unshare", "--pid", "--fork", "--mount-proc", "true"]).returncode:
        without("this machine does not let a process have a PID namespace of its own")
    zombies = "ps -eo stat= | grep -c Z"
    until_none = f'for n in $(seq 300); do [ "$({zombies})" = 0 ] && break; sleep 0.2; done'
    script = f"for i in 1 2 3; do (sh -c 'sleep 0.1 & exit' ); done; sleep 1; {until_none}; {zombies}; kill -9 $$"
    observed = ended(["unshare", "--pid", "--fork", "--mount-proc", *RUN, "sh", "-c", script])
    assert observed.stdout == b"0\n"
    assert observed.returncode == 128 + signal.SIGKILL


def test_a_command_that_ends_before_it_is_ready_is_recorded_as_failed(tmp_path: Path) -> None:
    observed = ended([*RUN, "sh", "-c", "exit 3"])
    assert "`sh -c 'exit 3'` ended with exit code 3 before its engine answered" in observed.stderr.decode()
    (journal,) = (tmp_path / "state").glob("runs/*.jsonl")
    run = read_journal(journal)
    assert {step.name: step.outcome for step in run.steps if step.kind == "phase"}["engine_init"] == "failed"
    assert run.state == "closed"
