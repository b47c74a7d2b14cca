"""The file of an engine's output."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from phasebus.telemetry.output_file import copy_lines
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

_PRINTING = """
import subprocess, sys
from phasebus.telemetry.output_file import redirect_output
process = redirect_output(sys.argv[1])
print(process is not None, file=sys.__stdout__, flush=True)
if process: process.wait()
for n in range(1000): print("line", n, flush=True)
subprocess.run([sys.executable, "-c", "print('of a child, with the token very-secret-value')"])
print("the end", file=sys.stderr)
"""


def printing(file: Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", _PRINTING, str(file)],
        cwd=cwd,
        env={**os.environ, "HF_TOKEN": "very-secret-value"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_output_stays_where_it_was_if_the_file_is_a_pipe_or_a_link(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("pipe", "link"):
        done = printing(tmp_path / name)
        assert done.stdout.startswith("False\nline 0\n")
        assert (done.returncode, done.stderr) == (0, "the end\n")
    assert not (tmp_path / "target").exists()


def test_process_that_writes_imports_nothing_from_the_working_directory(tmp_path: Path) -> None:
    file, planted = tmp_path / "engine.log", tmp_path / "phasebus"
    planted.mkdir()
    (planted / "__init__.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    done = printing(file, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    wait_until(lambda: file.exists() and "the end\n" in file.read_text(), "all output is written")
    assert not (tmp_path / "executed").exists()


def test_output_of_a_process_and_its_children_is_in_the_file_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "engine.log"
    done = printing(file)
    assert (done.returncode, done.stderr) == (0, "")
    wait_until(lambda: file.exists() and "the end\n" in file.read_text(), "all output is written")
    text = file.read_text()
    assert text.count("line ") == 1000
    assert "of a child, with the token" in text
    assert "very-secret-value" not in text
    assert file.stat().st_mode & 0o777 == 0o600


def test_process_prints_without_an_error_onto_a_full_disk() -> None:
    done = printing(Path("/dev/full"))
    assert (done.returncode, done.stderr) == (0, "")


def test_output_stays_where_it_was_if_the_file_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for file in (tmp_path / "none" / "engine.log", tmp_path / "link"):
        done = printing(file)
        assert done.returncode == 0
        assert done.stdout.startswith("False\n")
        assert "line 999\n" in done.stdout
        assert done.stderr == "the end\n"


def test_bytes_that_a_full_disk_lost_are_counted_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, (reader, writer) = tmp_path / "engine.log", os.pipe()
    full = True
    write = os.write

    def write_unless_full(descriptor: int, data: bytes) -> int:
        if full and descriptor != writer:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", write_unless_full)
    seen: list[str] = []

    def redact(line: str) -> str:
        seen.append(line)
        return line

    thread = threading.Thread(target=copy_lines, args=(reader, str(file), redact))
    thread.start()
    write(writer, b"lost\nlost too\n")
    wait_until(lambda: len(seen) == 2, "both lines are read")
    full = False
    write(writer, b"kept\n\xff a progress bar")
    wait_until(lambda: len(seen) == 4, "the start of a line is not held back for ever")
    os.close(writer)
    thread.join()
    os.close(reader)
    assert file.read_text() == "[14 bytes are missing here: the disk was full]\nkept\n\ufffd a progress bar"


def test_line_that_cannot_be_masked_is_left_out(tmp_path: Path) -> None:
    file, (reader, writer) = tmp_path / "engine.log", os.pipe()
    os.write(writer, b"odd\n")
    os.close(writer)

    def redact(line: str) -> str:
        raise ValueError(line)

    copy_lines(reader, str(file), redact)
    os.close(reader)
    assert file.read_text() == "[a line that could not be masked]\n"


_UNABLE = """
import os, sys
from phasebus.telemetry.output_file import redirect_output
os.environ["PYTHONHOME"] = "/nowhere"  # no interpreter starts
redirection = redirect_output(sys.argv[1])
print(redirection.wait(), flush=True)
print("an error", file=sys.stderr)
"""


def test_output_goes_where_it_went_before_if_the_process_that_writes_cannot(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _UNABLE, str(tmp_path / "engine.log")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "an error\n")


_PRINTING_ON = """
import sys
from phasebus.telemetry.output_file import redirect_output
redirection = redirect_output(sys.argv[1])
answers = open(int(sys.argv[2]), "w")
print(redirection.wait(), file=answers, flush=True)
for line in sys.stdin: print("got", line, end="", flush=True)
"""


def writers_of(file: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    return [
        each for each in found if (each.info["cmdline"] or [])[-2:] == ["phasebus.telemetry.output_file", str(file)]
    ]


def test_prints_reach_the_file_after_the_process_that_writes_was_killed(tmp_path: Path) -> None:
    file, (answers, end) = tmp_path / "engine.log", os.pipe()
    command = [sys.executable, "-c", _PRINTING_ON, str(file), str(end)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[end]) as printing_process:
        os.close(end)
        assert printing_process.stdin is not None
        assert os.read(answers, 100) == b"True\n"
        printing_process.stdin.write(b"the first\n")
        printing_process.stdin.flush()
        wait_until(lambda: "got the first\n" in file.read_text(), "the process writes")
        (writer,) = writers_of(file)
        writer.kill()
        wait_until(lambda: has_ended(writer), "the process that writes has ended")  # it may still read until then
        printing_process.stdin.write(b"the last\n")
        printing_process.stdin.flush()
        wait_until(lambda: "got the last\n" in file.read_text(), "another process writes")
        printing_process.stdin.close()
        assert printing_process.wait() == 0
    os.close(answers)
    wait_until(lambda: not writers_of(file), "the process that writes ends with the last one that prints")
