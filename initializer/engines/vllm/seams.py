"""Every private part of vLLM that phasebus uses, in one list, and which of them a vLLM has.

The list is checked against vLLM's source, which takes a second: importing vLLM takes half a minute, and a wheel that is only
unpacked cannot be imported. Read from vLLM 0.32.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from phasebus.initializer.engines.vllm.inside import forkserver, hooks, ids, ranks


class Seam(NamedTuple):
    """One private part of vLLM.

    Attributes:
        module: The module that has it.
        path: Its attribute there, with dots.
        purpose: What is missing without it.
    """

    module: str
    path: str
    purpose: str

    def __str__(self) -> str:
        return f"{self.module}:{self.path}"


SEAMS: Final[Sequence[Seam]] = (
    Seam("vllm.plugins", "load_general_plugins", "all notices: our plugin is not loaded"),
    Seam("vllm.tracing", "instrument", "the steps that vLLM has no span for"),
    Seam("vllm.tracing", "init_tracer", "the spans of the front end"),
    Seam(ids.VLLM_TRACING, "TracerProvider", "unique span ids where a process makes a second provider"),
    *(Seam(module, path, f"the step {step}") for module, path, step in hooks.UNTRACED_FUNCTIONS),
    Seam(*hooks.LOADER, "the size of the weights"),
    Seam(*hooks.CONFIGURATION, "the name that the model is served under"),
    *(Seam(module, path, "readiness of an engine without a server") for module, path in hooks.FRONT_ENDS),
    Seam(*hooks.STAT_LOGGERS, "the counts of iterations"),
    Seam("vllm.v1.metrics.loggers", "StatLoggerBase", "the counts of iterations"),
    *(Seam(module, path, "the ranks of processes") for module, path in ranks.TARGETS),
    *(Seam(module, "get_mp_context", "forking from a preloaded server") for module in forkserver.STARTING_PROCESSES),
)


def missing_seams(root: Path | None = None) -> list[Seam]:
    """Return the seams that a vLLM lacks.

    Args:
        root: The folder ``vllm`` of its source; None for the vLLM that is installed. Without one, all are missing.
    """
    if root is None:
        found = importlib.util.find_spec("vllm")
        root = None if found is None or found.origin is None else Path(found.origin).parent
    if root is None:
        return list(SEAMS)
    trees = {module: _parsed(root, module) for module in {seam.module for seam in SEAMS}}
    return [seam for seam in SEAMS if not _has(trees[seam.module], seam.path.split("."))]


def _parsed(root: Path, module: str) -> list[ast.stmt]:
    """Return the statements of a module; none if there is no such module."""
    below = root.joinpath(*module.split(".")[1:])
    for path in (below.with_suffix(".py"), below / "__init__.py"):
        try:
            return ast.parse(path.read_text(encoding="utf-8")).body
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
            return not rest or _has(statement.body, rest)
        elif not rest and name in _names(statement):
            return True
    return False


def _names(statement: ast.stmt) -> set[str]:
    """Return the names that a statement other than a class binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.Assign):
        return {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return set()
