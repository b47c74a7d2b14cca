"""Carrying what observers saw out of the process: spans, metrics, the engine's own spans, the HTTP service, the journal.

This room knows what a step is, from `phasebus.bus`, and nothing of downloads, engines or Ray. What things are called
outside stands in one file: `names`.

The public names are those of `_public`, imported when the first one is used: masking a line of text needs none.
"""

from typing import TYPE_CHECKING

from phasebus.lazy import names_of_public

if TYPE_CHECKING:
    from phasebus.telemetry._public import *  # noqa: F403
    from phasebus.telemetry._public import __all__ as __all__
else:
    __getattr__ = names_of_public(__name__)
