from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from phasebus.initializer.cli.interrupts import interruptible_imports

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "module",
    [
        *("phasebus.initializer.cli", "click", "phasebus.initializer.cli.group", "phasebus.initializer.cli.up"),
        *("anyio", "pydantic", "phasebus.telemetry", "phasebus.initializer.cluster", "phasebus.observers"),
    ],
)
def test_an_interrupt_during_imports_ends_the_command_without_a_traceback(module: str, tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000): pass  # the handler runs between two instructions
            except BaseException:
                pass  # some libraries tolerate all that an optional import raises
sys.meta_path.insert(0, Interrupt())
from phasebus.console_script import main
main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, "up", str(tmp_path / "none.yaml")], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "phasebus: ended by SIGINT\n")


def test_an_ignored_interrupt_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible_imports():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_handler_of_the_program_is_restored_and_other_threads_set_none() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruptible_imports():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        entered: list[bool] = []

        def enter() -> None:
            with interruptible_imports():
                entered.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert entered == [True]
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_console_script_is_the_leaf_that_imports_nothing_first() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"phasebus": "phasebus.console_script:main"}
    code = "import sys, phasebus.console_script; print([name for name in sys.modules if name.startswith('phasebus.')])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "['phasebus.console_script']\n"


def test_the_help_and_the_version_import_little_more_than_click() -> None:
    for option in ("--help", "--version"):
        code = f"""
import sys
before = set(sys.modules)
from phasebus.initializer.cli import main
main([{option!r}], standalone_mode=False)
print(sorted({{name.partition('.')[0] for name in sys.modules.keys() - before}} - set(sys.stdlib_module_names)))
"""
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert shown.endswith("['click', 'phasebus']\n"), shown
