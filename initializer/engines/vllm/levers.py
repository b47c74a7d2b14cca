"""What can be changed about a start of vLLM so that it takes less time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from phasebus.initializer.engines.vllm.compilations import compile_seconds
from phasebus.telemetry.analysis import Lever, PlacedStep, own_seconds, shortened
from phasebus.telemetry.journal import RecordedStep, Run

_FORKED: Final = 0.03
"""What is taken to be left of the imports of a process that is forked with them: an assumption, which a measurement tests."""

_IMPORTED_SECONDS: Final = 1.0
"""A process that took less time had everything imported when it was forked."""

_CACHED: Final = 0.1
"""What is left of a step that finds in a cache what it had to make; no more is promised without a measurement."""

_LOADED: Final = 0.2
"""What is left of compiling a source: its bytecode is read and loaded. Of 10.8 s that compiling takes in a process that imports
vLLM 0.32, bytecode saved 8.3 s (CPU time, Python 3.11)."""

_COMPILED: Final = frozenset({"compiled_model", "compiled_graph", "inductor", "kernels"})
_COMPILE_ONCE: Final = (
    "when the image is built: python -m compileall -q -j 0 SITE-PACKAGES, or UV_COMPILE_BYTECODE=1 for uv; "
    "or PYTHONPYCACHEPREFIX on a volume, filled by one start without PYTHONDONTWRITEBYTECODE"
)
_INSPECTED: Final = frozenset({"model_inspection"})
_WAITS_FOR_FORK: Final = "wait_for_fork_server"


def levers(run: Run) -> Iterator[Lever]:
    """Return the levers of a start of vLLM: a fork server that stays, bytecode, and its caches.

    Where processes are forked, the inspection of the model's class is none. It runs beside the imports of the fork server, which
    no step shows: as much as it is shorter, the processes wait longer for the server (measured: 7 to 12 s less, 5 to 6 s more).
    """
    forked = any(step.name == _WAITS_FOR_FORK for step in run.steps)
    imports = any(_imports(step) and step.seconds(run.end_ns) >= _IMPORTED_SECONDS for step in run.steps)
    if run.root is not None and "command" in run.root.attributes and imports:
        yield Lever(
            name="keep a fork server that has vLLM imported",
            how="phasebus forkserver start, or phasebus run --forkserver keep -- …",
            cost="its memory while it stays",
            factor=shortened(_imports, _FORKED),
            around=(("forkserver", "start"), ("forkserver", "stop")),
        )
    if compiled := compile_seconds(run):
        yield Lever(
            name="compile the packages once",
            how=_COMPILE_ONCE,
            cost="space on the disk, about 100 MB",
            factor=lambda at: _without_compiling(at, compiled.get(at.step.id, 0.0)),
            fills_caches=True,
            variables={"PYTHONPYCACHEPREFIX": "{folder}", "PYTHONDONTWRITEBYTECODE": ""},
        )
    for what, caches in (
        ("the inspection of the model's class", _INSPECTED),
        ("compiled graphs and kernels", _COMPILED),
    ):
        missed = {step.id for step in run.steps if _missed(step) & caches}
        if missed and not (forked and caches is _INSPECTED):
            yield Lever(
                name=f"keep {what} between starts",
                how="a volume for VLLM_CACHE_ROOT, TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR, filled by one start",
                cost="space on the disk",
                factor=shortened(lambda step, missed=missed: step.id in missed, _CACHED),  # type: ignore[misc]
                fills_caches=True,
            )


def _without_compiling(at: PlacedStep, seconds: float) -> float:
    own = own_seconds(at)
    return max(0.0, 1.0 - (1.0 - _LOADED) * seconds / own) if own > 0 else 1.0


def _imports(step: RecordedStep) -> bool:
    return step.kind == "engine_step" and (step.name.startswith("import_") or step.name == _WAITS_FOR_FORK)


def _missed(step: RecordedStep) -> set[str]:
    return {
        name.removeprefix("cache.")
        for name, value in step.attributes.items()
        if name.startswith("cache.") and value == "miss"
    }
