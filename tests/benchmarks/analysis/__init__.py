"""What phasebus concludes from starts: the tables of ``python -m tests.benchmarks analysis``.

Each module of this folder that has a function ``tables() -> Iterable[Table]`` is a part of it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from tests.benchmarks.measuring import Table


def tables() -> Iterator[Table]:
    """Yield the tables of all parts."""
    for found in pkgutil.iter_modules(__path__):
        yield from importlib.import_module(f"{__name__}.{found.name}").tables()
