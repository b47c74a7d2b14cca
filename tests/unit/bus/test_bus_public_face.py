from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import phasebus.bus
from phasebus.bus import PhasebusError

HERE = Path(phasebus.bus.__file__).parent


def test_every_name_that_is_imported_into_the_face_is_exported() -> None:
    tree = ast.parse((HERE / "__init__.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(phasebus.bus.__all__)


def test_every_public_class_documents_its_public_members() -> None:
    undocumented = [
        f"{name}.{member}"
        for name in phasebus.bus.__all__
        if inspect.isclass(cls := getattr(phasebus.bus, name))
        for member, thing in vars(cls).items()
        if not member.startswith("_") and (inspect.isfunction(thing) or isinstance(thing, property))
        if not inspect.getdoc(thing)
    ]
    assert undocumented == []


def test_every_error_is_a_phasebus_error_and_documents_when_it_is_raised() -> None:
    errors = [e for name in phasebus.bus.__all__ if name.endswith("Error") for e in [getattr(phasebus.bus, name)]]
    assert len(errors) > 5
    for error in errors:
        assert issubclass(error, PhasebusError)
        assert error is PhasebusError or error.__doc__.startswith("Raised when")


def test_bus_imports_no_other_room() -> None:
    for file in HERE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                top = module.split(".")
                assert top[0] != "phasebus" or top[1] in ("bus", "clock", "printable"), f"{file.name} imports {module}"


def test_importing_it_needs_nothing_but_anyio() -> None:
    script = (
        "import sys, phasebus.bus\n"
        "names = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "sys.exit(repr(names - {'phasebus', 'anyio', 'sniffio', 'idna', 'typing_extensions', '__main__'} or ''))"
    )
    ended = subprocess.run(
        [sys.executable, "-S", "-c", _with_paths(script)], capture_output=True, text=True, check=False
    )
    assert ended.stderr in ("", "''\n", "\n"), ended.stderr


def _with_paths(script: str) -> str:
    return f"import sys; sys.path[:] = {sys.path!r}\n{script}"
