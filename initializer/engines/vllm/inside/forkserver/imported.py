"""Variables that libraries read when they are loaded: a fork has them loaded, with the values of its server's start.

vLLM sets some of them between the start of the front end and that of a worker. The known ones are applied to the loaded
library; if any other of them has changed, the process has to be spawned. Read from vLLM 0.32 (`platforms/cpu.py`,
`utils/ompmultiprocessing.py`), torch 2.13 (`_inductor/config.py`) and libgomp.
"""

from __future__ import annotations

import ctypes
import os
import posix
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

READ_WHEN_LOADED: Final = (
    *("LD_", "GLIBC_", "MALLOC_", "TCMALLOC_", "PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_"),
    *("TORCH", "PYTORCH_", "TRITON_", "HF_", "TRANSFORMERS_", "TOKENIZERS_"),
    *("FLA_", "GDN_", "USE_DEFAULT_FLA_NORM", "VLLM_BATCH_INVARIANT", "VLLM_CONFIG_ROOT", "VLLM_CONFIGURE_LOGGING"),
    *("VLLM_ENABLE_CUDA_COMPATIBILITY", "VLLM_LOGGING_", "VLLM_LOG_BATCHSIZE_INTERVAL", "VLLM_LORA_ENABLE_DUAL_STREAM"),
    *("VLLM_RINGBUFFER_WARNING_INTERVAL", "VLLM_TRITON_FORCE_FIRST_CONFIG", "VLLM_USAGE_STATS_SERVER"),
    *(
        "VLLM_USE_LAYERNAME",
        "VLLM_USE_MODELSCOPE",
        "VLLM_USE_SPINLOOP_EXT",
        "FLASHINFER_CUBINS_REPOSITORY",
        "USE_FLAGOS",
    ),
)
"""The first letters of the names of variables that libraries read when they are loaded."""

LIBRARY_PATH: Final = "LD_LIBRARY_PATH"
"""The folders that the dynamic linker searches. It reads the variable once, when a program is executed."""

_SET_BY_IMPORT: Final = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "TRITON_CACHE_AUTOTUNING": "1"}
"""Variables that importing vLLM sets (`env_override.py`), in the server as well."""

_PLACES: Final = frozenset({"GOMP_CPU_AFFINITY", "OMP_PLACES", "OMP_PROC_BIND"})
_APPLIED_TO_OPENMP: Final = frozenset({*_PLACES, "OMP_NUM_THREADS"})

_recorded: tuple[Mapping[str, str], ...] = ()
"""The environment that the imports began with, and the last one: it has the variables that the imports have set."""


def record_environment(*, executes_server: bool = False) -> None:
    """Remember the environment of this process: the first one, and the last one, of which each is as good to a fork.

    A process with the first one sets by its imports what the server has set by its own.

    Args:
        executes_server: Whether the server is executed with this environment; otherwise it is this process, or a fork of it.
    """
    global _recorded  # noqa: PLW0603  # a fact about the process, which its forks inherit
    last = dict(os.environ)
    if executes_server:
        _recorded = (last, last)
    elif _recorded:
        _recorded = (_recorded[0], last)
    else:
        _recorded = ({**last, LIBRARY_PATH: _executed_library_path()}, last)


def _executed_library_path() -> str:
    """Return the folders that the dynamic linker searches in this process, and in its forks, whatever has been set since."""
    return os.fsdecode(posix.environ.get(os.fsencode(LIBRARY_PATH), b""))


def unknown_changes(environment: Mapping[str, str]) -> list[str]:
    """Return the variables whose changed values no fork can have; none of them if it can be forked."""
    changed = _changes(environment)
    return sorted(name for name, value in changed.items() if not _is_applicable(name, value, environment))


def apply_changes(environment: Mapping[str, str]) -> None:
    """Give loaded libraries the values of `environment`: threads, the CPUs they are bound to, the compiler's settings."""
    _use_shared_metrics(environment)
    changed = _changes(environment)
    torch = sys.modules.get("torch")
    if torch is None:
        return
    threads = changed.get("OMP_NUM_THREADS") or ""
    if threads.isdigit() and int(threads) > 0:
        torch.set_num_threads(int(threads))
    if cpus := _cpus(environment, changed):
        _bind_threads(cpus, torch.get_num_threads())
    inductor = sys.modules.get("torch._inductor.config")
    for name, setting in _INDUCTOR.items():
        if inductor is not None and name in changed:
            setting(inductor, changed[name])


def apply_cpus(before: int, now: int, environment: Mapping[str, str]) -> None:
    """Give torch as many threads as it has where it is imported with `now` CPUs; it has been imported with `before`."""
    torch = sys.modules.get("torch")
    if before != now and torch is not None and not environment.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(1, torch.get_num_threads() * now // before))


def _use_shared_metrics(environment: Mapping[str, str]) -> None:
    """Let metrics that are made from now on be shared by several API servers, as vLLM's are.

    Source: prometheus_client 0.18 to 0.25, values.py; it reads the variable when it is imported.
    """
    values = sys.modules.get("prometheus_client.values")
    if values is not None and environment.get("PROMETHEUS_MULTIPROC_DIR"):
        values.ValueClass = values.get_value_class()  # type: ignore[attr-defined]


def is_same(name: str, value: str | None, other: str | None) -> bool:
    """Return whether two values of a variable are the same to a program that is executed with one of them.

    The dynamic linker skips a folder that does not exist, such as the one that OpenCV inserts when it is imported (5.0,
    `cv2/__init__.py`); the empty folder that OpenCV appends, the working folder, is skipped here.
    """
    return value == other or (name == LIBRARY_PATH and _searched_folders(value) == _searched_folders(other))


def _searched_folders(value: str | None) -> list[str]:
    folders = (value or "").replace(";", ":").split(":")
    return [os.path.realpath(folder) for folder in folders if folder and os.path.isdir(folder)]


def _changes(environment: Mapping[str, str]) -> dict[str, str | None]:
    names = {name for name in {*environment, *_last()} if name.startswith(READ_WHEN_LOADED)}
    return {name: environment.get(name) for name in names if not _is_known(name, environment.get(name))}


def _is_known(name: str, value: str | None) -> bool:
    """Return whether everything has been imported with this value, or with one that is as good to a fork."""
    recorded = _recorded or ({},)
    if name == LIBRARY_PATH:
        recorded = recorded[:1]
    elif name in _APPLIED_TO_OPENMP:
        recorded = recorded[-1:]
    return any(is_same(name, value, each.get(name)) for each in recorded)


def _last() -> Mapping[str, str]:
    return _recorded[-1] if _recorded else {}


def _is_applicable(name: str, value: str | None, environment: Mapping[str, str]) -> bool:
    if name == "LD_PRELOAD":
        return _are_loaded((value or "").replace(":", " ").split())
    if value is None:
        return False
    if name in _PLACES:
        return bool(_cpus(environment, {name: value})) and "libgomp.so" in Path("/proc/self/maps").read_text()
    if name == "OMP_NUM_THREADS":
        return value.isdigit()
    return name in _INDUCTOR or name == "NUMEXPR_MAX_THREADS" or _SET_BY_IMPORT.get(name) == value


def _are_loaded(libraries: list[str]) -> bool:
    before = _last().get("LD_PRELOAD", "").replace(":", " ").split()
    maps = Path("/proc/self/maps").read_text()
    return set(before) <= set(libraries) and all(
        str(Path(library).resolve()) in maps for library in libraries if library not in before
    )


def _cpus(environment: Mapping[str, str], changed: Mapping[str, str | None]) -> list[int]:
    """Return the CPUs that OpenMP's threads are to be bound to; none if that has not changed, or is not a plain list."""
    if not _PLACES & set(changed):
        return []
    listed = environment.get("GOMP_CPU_AFFINITY") or environment.get("OMP_PLACES", "").strip("{}").replace(",", " ")
    return [int(each) for each in listed.split()] if all(each.isdigit() for each in listed.split()) else []


def _bind_threads(cpus: list[int], threads: int) -> None:
    """Bind this thread, and as many of OpenMP's as there are `threads`, to `cpus` in turn, as libgomp does when it is loaded."""
    os.sched_setaffinity(0, cpus)
    if threads > 1:
        gomp = ctypes.CDLL("libgomp.so.1")  # the one that torch has loaded
        body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
            lambda _: os.sched_setaffinity(0, {cpus[gomp.omp_get_thread_num() % len(cpus)]})
        )
        gomp.GOMP_parallel(body, None, threads, 0)
    os.sched_setaffinity(0, cpus[:1])


def _set_dynamic_threads(inductor: Any, value: str | None) -> None:
    inductor.cpp.dynamic_threads = value == "1"


def _set_compile_threads(inductor: Any, value: str | None) -> None:
    if value is not None and value.isdigit():
        inductor.compile_threads = int(value)


_INDUCTOR: Final[Mapping[str, Callable[[Any, str | None], None]]] = {
    "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": _set_dynamic_threads,
    "TORCHINDUCTOR_COMPILE_THREADS": _set_compile_threads,
}
