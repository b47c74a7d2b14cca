"""The commands that a fork server can run: vLLM's console scripts and modules, with the interpreter of this process."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phasebus.telemetry.files import read_regular

_MAX_SCRIPT_BYTES: Final = 10_000
_IMPORTS_MAIN: Final = re.compile(rb"^from vllm(\.[a-z_]+)* import \w+\s*$", re.MULTILINE)
_NOT_FORKED: Final = frozenset({"snapshot"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCommand:
    """A command that runs a script or a module of vLLM's.

    Attributes:
        arguments: Its arguments as Python has them, the script or "-m" first.
        script: The script's path; None for a module.
        module: The module's name; None for a script.
        name: The name that the system shows for its process.
    """

    arguments: Sequence[str]
    script: str | None
    module: str | None
    name: str


def read_python_command(path: str, arguments: Sequence[str], environment: Mapping[str, str]) -> PythonCommand | None:
    """Return what a command runs; None if a fork of this interpreter's cannot run it.

    Args:
        path: The path of its program.
        arguments: The program's name, and its arguments.
        environment: Its environment.
    """
    if any(not part.startswith("/") for part in environment.get("PYTHONPATH", "/").split(":")):
        return None  # relative to the working folder
    if any(argument in _NOT_FORKED for argument in arguments[1:2]):
        return None
    if _is_this_python(path):
        if len(arguments) < 3 or arguments[1] != "-m" or not f"{arguments[2]}.".startswith("vllm."):
            return None
        return PythonCommand(arguments=["-m", *arguments[3:]], script=None, module=arguments[2], name=Path(path).name)
    try:
        content = read_regular(Path(path), _MAX_SCRIPT_BYTES, follow=True)
    except OSError:
        return None
    shebang, _, _ = content.partition(b"\n")
    if not shebang.startswith(b"#!") or not _IMPORTS_MAIN.search(content) or not os.access(path, os.X_OK):
        return None
    if not _is_this_python(os.fsdecode(shebang[2:].strip())):
        return None
    return PythonCommand(arguments=[path, *arguments[1:]], script=path, module=None, name=Path(path).name)


def _is_this_python(path: str) -> bool:
    """Return whether `path` is the interpreter of this process, in the same virtual environment."""
    this, other = Path(sys.executable), Path(path)
    try:
        return other.is_absolute() and this.parent == other.parent and this.resolve() == other.resolve()
    except OSError:
        return False
