from __future__ import annotations

import io
import logging
import sys

import pytest

from phasebus.initializer.cli import doctor
from phasebus.initializer.cli.doctor.findings import Finding, Level
from phasebus.initializer.cli.group import main
from phasebus.initializer.cli.output import (
    OutputError,
    TolerantStream,
    check_output,
    keep_loggers_enabled,
    tolerant_streams,
)


class Broken(io.StringIO):
    """A stream whose writes fail as on a full disk or a closed pipe."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


def test_a_tolerant_stream_drops_what_cannot_be_written() -> None:
    stream = TolerantStream(Broken(OSError(28, "No space left on device")))
    assert stream.write("text") == 4
    stream.flush()
    assert isinstance(stream.error, OSError)


def test_a_tolerant_stream_stands_in_for_one_that_is_closed() -> None:
    stream = TolerantStream(None)
    stream.write("text")
    assert stream.error is None
    assert not stream.isatty()


def test_text_that_the_encoding_lacks_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with tolerant_streams():
        sys.stdout.write("████ é")
    assert written.getvalue() == b"???? ?"


def test_a_surrogate_is_shown_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding="utf-8"))
    with tolerant_streams():
        sys.stderr.write("caf\udce9 é")
    assert written.getvalue().decode() == "caf\\udce9 é"


def test_a_result_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(OSError(28, "No space left on device")))
    with tolerant_streams():
        sys.stdout.write("text")
        with pytest.raises(OutputError, match="No space left on device"):
            check_output()


def test_a_result_whose_reader_has_gone_ends_without_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(BrokenPipeError(32, "Broken pipe")))
    with tolerant_streams():
        sys.stdout.write("text")
        with pytest.raises(SystemExit) as ended:
            check_output()
    assert ended.value.code == 1


@pytest.mark.parametrize("level", ["ok", "fix"])
def test_command_that_ends_with_an_exit_code_fails_if_its_result_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: Level
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("topic", "name", "value", level)])
    monkeypatch.setattr(sys, "stdout", Broken(OSError(28, "No space left on device")))
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 1
    assert "the output cannot be written: No space left on device" in capsys.readouterr().err


def test_logging_configuration_of_others_does_not_disable_the_loggers_of_phasebus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.root.manager, "loggerDict", {})
    own, other = logging.getLogger("phasebus.startup"), logging.getLogger("phasebuses")
    own.disabled = True  # as `logging.config` does with every logger that it does not configure
    keep_loggers_enabled()
    assert own.isEnabledFor(logging.ERROR)
    for each in (own, other):
        each.disabled = True
    assert own.isEnabledFor(logging.ERROR)
    assert not other.isEnabledFor(logging.ERROR)
