"""The start-up of a node or a cluster: phases, download, placement, engine, and the command line.

The outermost room: it may import all others. `node/startup` has the phases in order; `pipeline/wiring` and `cli` add the
observers. The public names are those of `_public`, imported when the first one is used: ``phasebus --help`` needs none.
"""

from typing import TYPE_CHECKING

from phasebus.lazy import names_of_public

if TYPE_CHECKING:
    from phasebus.initializer._public import *  # noqa: F403
    from phasebus.initializer._public import __all__ as __all__
else:
    __getattr__ = names_of_public(__name__)
