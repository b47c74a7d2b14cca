from __future__ import annotations

import io
import logging
import signal
import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from rich.console import Console

from phasebus.bus import PhasebusError
from phasebus.initializer.cli import main
from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.options import service_options
from phasebus.initializer.cli.output import _WarningHandler
from phasebus.initializer.cli.report import report
from phasebus.initializer.cli.runs import runs
from phasebus.initializer.cli.terminal import _ConsoleHandler


@pytest.mark.parametrize("command", [[], ["up"], ["demo"], ["run"], ["watch"], ["report"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_a_misspelled_command_is_named_with_the_nearest() -> None:
    result = CliRunner().invoke(main, ["dmeo"])
    assert result.exit_code == 2
    assert "there is no command 'dmeo'; did you mean 'demo'?" in result.output


def test_the_help_of_a_command_imports_nothing_heavy() -> None:
    code = (
        "import sys; from phasebus.initializer.cli import main; from phasebus.initializer.cli.group import _COMMANDS;"
    )
    code += "[main([*each, '--help'], standalone_mode=False) for each in ([], *([name] for name in _COMMANDS))];"
    code += "print(sorted({'pydantic', 'rich', 'opentelemetry', 'httpx', 'uvicorn', 'yaml'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.count("Commands:") == 4
    assert shown.endswith("[]\n")


def test_completion_names_the_commands_without_importing_them() -> None:
    code = (
        "import sys, click\n"
        "from phasebus.initializer.cli import main\n"
        "from click.shell_completion import ShellComplete\n"
        "found = ShellComplete(main, {}, 'phasebus', '_PHASEBUS_COMPLETE').get_completions([], 're')\n"
        "print([each.value for each in found], 'phasebus.initializer.cli.report' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "['report'] False\n"


def test_completion_names_the_options_of_a_command() -> None:
    found = ShellComplete(main, {}, "phasebus", "_PHASEBUS_COMPLETE").get_completions(["watch"], "--un")
    assert [each.value for each in found] == ["--until-ready"]


@pytest.mark.parametrize("group", [main, report, runs])
def test_every_command_of_a_group_has_its_name_in_the_help(group: click.Group) -> None:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == name


@pytest.mark.parametrize("variable", ["abc", "-1", "65536", "1.5"])
def test_a_port_variable_that_is_no_port_is_ignored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.setenv("PHASEBUS_PORT", variable)
    assert chosen([]) == (None, None)
    assert f"PHASEBUS_PORT is '{variable}', which is no port" in capsys.readouterr().err


def test_a_port_variable_that_kubernetes_sets_for_a_service_is_no_port_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHASEBUS_PORT", "tcp://10.0.0.7:9464")
    assert chosen([]) == (None, None)
    assert capsys.readouterr().err == ""


def test_host_and_port_come_from_options_and_else_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_PORT", "1234")
    monkeypatch.setenv("PHASEBUS_HOST", "::1")
    assert chosen([]) == ("::1", 1234)
    assert chosen(["--host", "127.0.0.2", "--port", "0"]) == ("127.0.0.2", 0)


@pytest.mark.parametrize("variable", ["abc", "-1", "nan", "inf", "1e9"])
def test_a_linger_variable_that_is_no_time_is_ignored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.setenv("PHASEBUS_LINGER_SECONDS", variable)
    assert options([])["linger"] is None
    assert f"PHASEBUS_LINGER_SECONDS is '{variable}', which is no number of seconds" in capsys.readouterr().err


def test_the_time_to_linger_comes_from_the_option_and_else_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_LINGER_SECONDS", "12.5")
    assert options([])["linger"] == 12.5
    assert options(["--linger", "0"])["linger"] == 0


def chosen(arguments: list[str]) -> tuple[object, object]:
    found = options(arguments)
    return found["host"], found["port"]


def options(arguments: list[str]) -> dict[str, object]:
    @click.command()
    @service_options
    def command(**given: object) -> dict[str, object]:
        return given

    result: dict[str, object] = command.main(arguments, standalone_mode=False)
    return result


@pytest.mark.parametrize(("starts", "left"), [(True, "; nothing of the start-up is left running"), (False, "")])
def test_a_signal_outside_of_the_start_ends_with_one_line_too(
    starts: bool, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, reported(starts=starts):
        raise KeyboardInterrupt
    assert ended.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == f"phasebus: ended by SIGINT{left}\n"


FORGED = "first\n<0>an emergency\nphasebus: another message\n  of two parts\n\n12:00:00  node n: ready"
SHOWN = "first\n  <0>an emergency\n  phasebus: another message\n  of two parts\n\n  12:00:00  node n: ready\n"


def test_text_of_an_error_is_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), reported():
        raise PhasebusError(FORGED)
    assert capsys.readouterr().err == f"phasebus: {SHOWN}"


def test_text_of_a_warning_is_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("phasebus", logging.WARNING, "", 0, "%s", (FORGED,), None)
    _WarningHandler().handle(record)
    assert capsys.readouterr().err == f"phasebus: {SHOWN}"
    terminal = io.StringIO()
    _ConsoleHandler(Console(file=terminal, width=200)).handle(record)
    assert terminal.getvalue() == SHOWN
