"""The start-up of a node or a cluster: phases, download, placement, engine, and the command line.

The outermost room: it may import all others. `node/startup` has the phases in order; `pipeline/wiring` and `cli` add the
observers. The public names are those of `_public`, imported when the first one is used: ``phasebus --help`` needs none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phasebus.initializer._public import *  # noqa: F403
    from phasebus.initializer._public import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        _public = import_module("phasebus.initializer._public")
        if name == "__all__" or name in _public.__all__:
            globals()[name] = getattr(_public, name)
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
