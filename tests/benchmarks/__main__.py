"""Run the benchmarks: ``python -m tests.benchmarks [NAME…]`` runs those whose module names begin with a NAME.

Each module of this folder that has a function ``tables() -> Iterable[Table]`` is a benchmark. To add one, add a module.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import signal
import sys
from pathlib import Path

from tests.benchmarks.measuring import Table


def main(names: list[str]) -> int:
    """Run and print the benchmarks; return how many numbers missed their marks."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}")
    missed = 0
    for found in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if found.name in ("__main__", "measuring") or (names and not found.name.startswith(tuple(names))):
            continue
        tables = getattr(importlib.import_module(f"tests.benchmarks.{found.name}"), "tables", None)
        for table in tables() if tables is not None else ():
            assert isinstance(table, Table)
            print(f"\n{table}", flush=True)
            missed += table.missed
    if missed:
        print(
            f"\n{missed} numbers missed their marks, at a load average of {os.getloadavg()[0]:.1f}: run it again alone."
        )
    else:
        print("\nEvery number met its mark.")
    return missed


if __name__ == "__main__":
    # without this, a termination would leave running what a benchmark has started
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main(sys.argv[1:])
