"""Seams: the private parts of other libraries that phasebus uses, and how to find them without importing the library.

Which ones there are is written next to the code that uses them: `ray/versions.py` and `engines/vllm/seams.py`.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Seam:
    """One function, method, class or field of another library.

    Attributes:
        module: The full name of its module.
        path: Its name there; for a method or a field with its class's name before it.
        since: The first series that has it, as (major, minor).
        required: Whether phasebus cannot work without it.
    """

    module: str
    path: str
    since: tuple[int, int]
    required: bool = False

    def expected_in(self, series: tuple[int, ...]) -> bool:
        """Return whether a release of this series is known to have it."""
        return self.since <= series

    def __str__(self) -> str:
        return f"{self.module}.{self.path}"


def series(release: str) -> tuple[int, ...] | None:
    """Return (major, minor) of a release; None for a development version, whose number has no meaning."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return None if found is None or ".dev" in release else tuple(map(int, found.groups()))


def source_folder(package: str) -> Path | None:
    """Return the folder that holds an installed package, which is not imported; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parents[1]


def missing(seams: Iterable[Seam], folder: Path) -> Iterator[Seam]:
    """Yield each seam that the library in `folder` does not define."""
    for seam in seams:
        if not _defines(folder, seam):
            yield seam


def _defines(folder: Path, seam: Seam) -> bool:
    module = folder.joinpath(*seam.module.split("."))
    path = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    try:
        scope: ast.AST | None = ast.parse(path.read_bytes())
    except (OSError, SyntaxError):
        return False
    for name in seam.path.split("."):
        scope = _named(scope, name) if scope is not None else None
    return scope is not None


def _named(scope: ast.AST, name: str) -> ast.AST | None:
    """Return what `name` is defined by or imported with in a module or class, also below an ``if`` or ``try``."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name == name:
                return node
        elif isinstance(node, ast.ImportFrom):
            if any((alias.asname or alias.name) == name for alias in node.names):
                return node
        elif isinstance(node, ast.AnnAssign):
            if isinstance(node.target, ast.Name) and node.target.id == name:
                return node
        elif isinstance(node, ast.If | ast.Try) and (found := _named(node, name)) is not None:
            return found
    return None
