"""What can be changed about a start of vLLM so that it takes less time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from phasebus.initializer.engines.vllm.compilations import compile_seconds
from phasebus.telemetry.analysis import Factor, Lever, PlacedStep, own_seconds, shortened
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
_WAITS: Final = "wait_for_"
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
            factor=_spared(lambda at: (1.0 - _FORKED) * own_seconds(at) if _imports(at.step) else 0.0),
            around=(("forkserver", "start"), ("forkserver", "stop")),
        )
    if compiled := compile_seconds(run):
        yield Lever(
            name="compile the packages once",
            how=_COMPILE_ONCE,
            cost="space on the disk, about 100 MB",
            factor=_spared(lambda at: (1.0 - _LOADED) * compiled.get(at.step.id, 0.0)),
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


def _spared(seconds: Callable[[PlacedStep], float]) -> Factor:
    """Return a factor that spares each step so many seconds of its own time, and each wait what the steps beside it are spared."""

    def factor(at: PlacedStep) -> float:
        own = own_seconds(at)
        spared = seconds(at) or _spared_beside(at, seconds)
        return max(0.0, 1.0 - spared / own) if own > 0 else 1.0

    return factor


def _spared_beside(at: PlacedStep, seconds: Callable[[PlacedStep], float]) -> float:
    """Return what a process is spared that `at` waits for: of several ones, the one that is spared most."""
    if at.outer is None or not at.step.name.startswith(_WAITS):
        return 0.0
    spared: dict[object, float] = {}
    for each in at.outer.inside:
        process = each.step.attributes.get("process")
        if process != at.step.attributes.get("process"):
            spared[process] = spared.get(process, 0.0) + sum(_during(at, part, seconds) for part in each.walk())
    return max(spared.values(), default=0.0)


def _during(wait: PlacedStep, part: PlacedStep, seconds: Callable[[PlacedStep], float]) -> float:
    """Return what `part` is spared while `wait` lasts, in proportion to its time."""
    overlap = min(part.end_ns, wait.end_ns) - max(part.start_ns, wait.start_ns)
    if overlap <= 0 or not (spared := min(seconds(part), own_seconds(part))):
        return 0.0
    return spared * overlap / (part.end_ns - part.start_ns)


def _imports(step: RecordedStep) -> bool:
    return step.kind == "engine_step" and (step.name.startswith("import_") or step.name == _WAITS_FOR_FORK)


def _missed(step: RecordedStep) -> set[str]:
    return {
        name.removeprefix("cache.")
        for name, value in step.attributes.items()
        if name.startswith("cache.") and value == "miss"
    }
