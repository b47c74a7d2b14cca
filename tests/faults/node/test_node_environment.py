"""`phasebus run` and `phasebus up` where something that only observing needs is missing: one warning, and on without."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.programs import without

PHASEBUS = [sys.executable, "-m", "phasebus.initializer.cli"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path / "state"))
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can read; pytest keeps its own to one user."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(params=["run", "up"])
def command(request: pytest.FixtureRequest, open_folder: Path) -> list[str]:
    """A start that succeeds: of a command, and of a node without an engine."""
    if request.param == "run":
        return [*PHASEBUS, "run", "--port", "0", "--", "sh", "-c", "echo started"]
    (open_folder / "model").mkdir(mode=0o755)
    (open_folder / "model" / "config.json").write_text("{}")
    (open_folder / "node.yaml").write_text(f"model: {open_folder}/model\nengine: none\nservice: {{port: 0}}\n")
    return [*PHASEBUS, "up", str(open_folder / "node.yaml"), "--once"]


def ended(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Return the start, which has succeeded without a traceback."""
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stderr
    assert "started" in result.stdout or "ready in" in result.stdout
    assert "Traceback" not in result.stderr
    return result


def warnings_of(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("phasebus: ")]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def test_in_an_environment_with_a_taken_port_the_next_free_one_is_used(command: list[str], taken_port: int) -> None:
    command = [part for part in command if part not in ("--port", "0")]
    (warning,) = warnings_of(ended([*command[:4], "--port", str(taken_port), *command[4:]]))
    assert f"port {taken_port} on 127.0.0.1 is taken; metrics and the page are on port" in warning


OTEL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    "variables",
    [
        {
            "PHASEBUS_STATE_DIR": "/proc/nowhere",
            "PHASEBUS_HOST": "no-such-host.invalid",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
        },
        {"PHASEBUS_STATE_DIR": "/etc/passwd", "PHASEBUS_HOST": "192.0.2.1", "OTEL_ATTRIBUTE_COUNT_LIMIT": "many"},
        {"PHASEBUS_STATE_DIR": f"/{300 * 'a'}"},  # no system call accepts it, as in a folder that may not be searched
    ],
    ids=["nowhere", "something else there", "not even to be looked up"],
)
def test_in_an_environment_with_wrong_variables_there_is_one_warning_for_each(
    command: list[str], variables: Mapping[str, str]
) -> None:
    warnings = warnings_of(ended(command, **OTEL, **variables))
    for value in variables.values():
        assert len([line for line in warnings if value in line]) == 1, (value, warnings)


@pytest.mark.parametrize(
    "variables",
    [  # those that cannot hide one another are together
        {
            "PYTHONIOENCODING": "ascii",
            "TZ": "Not/AZone",
            "PYTHONPATH": "/nowhere",
            "TERM": "dumb",
            "NO_COLOR": "1",
            "COLUMNS": "0",
            "LINES": "-1",
        },
        {
            "PYTHONIOENCODING": "latin-1",
            "TZ": ":",
            "TRACEPARENT": "zz-not-a-traceparent",
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNODEBUGRANGES": "1",
        },
        {
            "LC_ALL": "POSIX",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONUTF8": "0",
            "TMPDIR": "/nowhere",
            "SSL_CERT_FILE": "/nowhere",
            "REQUESTS_CA_BUNDLE": "/nowhere",
        },
        {"LC_ALL": "no_SUCH.locale", "LANG": "xx", "PYTHONOPTIMIZE": "2", "PHASEBUS_PORT": "tcp://10.0.0.7:9464"},
    ],
    ids=["ascii", "latin-1", "POSIX", "no locale"],
)
def test_in_an_odd_environment_a_start_is_as_in_any_other(command: list[str], variables: Mapping[str, str]) -> None:
    assert warnings_of(ended(command, **variables)) == []


@pytest.mark.parametrize(
    "redirection", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "2>&1 | true"]
)
def test_in_an_environment_without_an_output_a_start_succeeds(
    command: list[str], tmp_path: Path, redirection: str
) -> None:
    done = tmp_path / "done"
    if "up" in command:
        script = f'"$@" {redirection}'
    else:  # a command of its own would fail: it is to be started
        command = [*command[:-3], "sh", "-c", f"touch {done}"]
        script = f'"$@" {redirection}; [ -e {done} ]'
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}", "bash", *command], capture_output=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr


def test_in_the_environment_of_a_user_without_a_home_a_start_succeeds(
    command: list[str], open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid() != 0:
        without("only root can become another user")
    for name in ("HOME", "PHASEBUS_STATE_DIR", "XDG_STATE_HOME", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(open_folder)
    result = ended(["setpriv", "--reuid=1000770000", "--regid=0", "--clear-groups", *command])
    assert warnings_of(result) == []
    assert not (open_folder / "~").exists()


def test_in_an_environment_with_few_descriptors_a_start_succeeds(command: list[str]) -> None:
    ended(["bash", "-c", 'ulimit -n 40; exec "$@"', "bash", *command])


def test_in_an_environment_that_lets_no_file_grow_a_start_succeeds(command: list[str], tmp_path: Path) -> None:
    result = subprocess.run(
        ["bash", "-c", 'ulimit -f 0; "$@" 2>&1 | cat; exit ${PIPESTATUS[0]}', "bash", *command],
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout


def test_in_an_environment_whose_folder_was_deleted_a_start_succeeds(command: list[str], tmp_path: Path) -> None:
    script = f'mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec "$@"'
    ended(["bash", "-c", script, "bash", *command], PYTHONPATH=str(Path(__file__).parents[3] / "src"))


@pytest.mark.parametrize("kilobytes", [60_000, 100_000, 200_000, 400_000])
def test_in_an_environment_with_little_memory_the_command_runs(kilobytes: int) -> None:
    command = [*PHASEBUS, "run", "--port", "0", "--", "sh", "-c", "echo started; exit 3"]
    limited = ["bash", "-c", f'ulimit -v {kilobytes}; exec "$@"', "bash", *command]
    result = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=120)
    assert (result.returncode, result.stdout) == (3, "started\n"), result.stderr
