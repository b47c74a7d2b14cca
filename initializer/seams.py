"""Seams: the private parts of other libraries that phasebus uses, found in their sources without importing them.

Which ones there are is listed beside the code that uses them, in `engines/vllm/seams.py` and `ray/versions.py`. Importing
vLLM takes half a minute, and a wheel that is only unpacked cannot be imported.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

_ATTEMPTS: Final = 5


class Seam(NamedTuple):
    """One private part of a library.

    Attributes:
        module: The full name of the module that has it.
        path: Its attribute there, with dots. An attribute of a class may be one that its methods set on ``self``.
        purpose: What is missing without it.
        elsewhere: The modules that have it in older versions.
    """

    module: str
    path: str
    purpose: str
    elsewhere: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.module}:{self.path}"


def missing_from(seams: Sequence[Seam], package: str, root: Path | None = None) -> list[Seam]:
    """Return those of `seams` that a library lacks.

    Args:
        seams: What is looked up. A seam of another library, which this one uses, is looked up where that is installed.
        package: The library's top-level package.
        root: The folder of that package; None for the one that is installed. Without one, all are missing.
    """
    root = root or _installed(package)
    if root is None:
        return list(seams)
    trees = {}
    for module in {module for seam in seams for module in (seam.module, *seam.elsewhere)}:
        owner = module.partition(".")[0]
        trees[module] = _parsed(root if owner == package else _installed(owner), module)
    return [
        seam
        for seam in seams
        if not any(_has(trees[module], seam.path.split(".")) for module in (seam.module, *seam.elsewhere))
    ]


def series(release: str) -> tuple[int, ...] | None:
    """Return (major, minor) of a release; None for a development version, whose number has no meaning."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return None if found is None or ".dev" in release else tuple(map(int, found.groups()))


def _installed(package: str) -> Path | None:
    """Return the folder of an installed package; None if it is not installed."""
    found = importlib.util.find_spec(package)
    return None if found is None or found.origin is None else Path(found.origin).parent


def parsed_source(source: str) -> ast.Module:
    """Return the syntax tree of a source file.

    Raises:
        SyntaxError: It is not of this Python.

    Source: CPython before 3.13, Parser/asdl_c.py; `ast.parse` fails if another thread parses at the same moment, as the format
    of each traceback does.
    """
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(SystemError):
            return ast.parse(source)
    return ast.parse(source)


def _parsed(root: Path | None, module: str) -> list[ast.stmt]:
    """Return the statements of a module; none if there is no such module."""
    if root is None:
        return []
    below = root.joinpath(*module.split(".")[1:])
    for path in (below.with_suffix(".py"), below / "__init__.py"):
        try:
            return parsed_source(path.read_text(encoding="utf-8")).body
        except (OSError, SyntaxError):
            continue
    return []


def _has(body: Iterable[ast.stmt], path: Sequence[str]) -> bool:
    name, *rest = path
    for statement in body:
        if isinstance(statement, ast.If | ast.Try):
            branches = [statement.body, statement.orelse]
            if any(_has(branch, path) for branch in branches):
                return True
        elif isinstance(statement, ast.ClassDef) and statement.name == name:
            return not rest or _has(statement.body, rest) or (len(rest) == 1 and _sets(statement, rest[0]))
        elif not rest and name in _names(statement):
            return True
    return False


def _sets(owner: ast.ClassDef, name: str) -> bool:
    """Return whether a method of the class `owner` sets the attribute `name` of its instances."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == name
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        for node in ast.walk(owner)
    )


def _names(statement: ast.stmt) -> set[str]:
    """Return the names that a statement other than a class binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.AnnAssign):
        return {statement.target.id} if isinstance(statement.target, ast.Name) else set()
    if isinstance(statement, ast.Assign):
        return {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return set()
