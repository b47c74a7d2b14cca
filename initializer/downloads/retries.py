"""When a failed attempt is repeated, and after which pause.

Written here because libraries count the attempts of a function: a file of many gigabytes may be interrupted any number
of times as long as each attempt gets further, and a server may ask for a pause.
"""

from __future__ import annotations

import random
from typing import Final

from phasebus.initializer.downloads.errors import CorruptError, TransferError
from phasebus.initializer.downloads.settings import DownloadSettings

_PROGRESS: Final = 2**20
"""An attempt that downloads this many bytes resets the count of failed attempts."""

_MAX_CORRUPT: Final = 3
"""How often a file may be corrupt before the source itself is considered to be at fault."""


class RetryBudget:
    """The attempts that one piece of work has left.

    Args:
        settings: The number of attempts, and the pauses between them.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._corrupt = 0

    def next_pause(self, error: TransferError, gained: int = 0) -> float | None:
        """Return the pause before the next attempt, in seconds; None to give up.

        Args:
            error: The failure of the last attempt.
            gained: The number of bytes that it downloaded nevertheless.
        """
        settings = self._settings
        if isinstance(error, CorruptError):
            self._corrupt += 1
            if self._corrupt >= _MAX_CORRUPT:
                return None
        elif gained >= _PROGRESS:
            self._failures = 0
        self._failures += 1
        if self._failures >= settings.attempts:
            return None
        if error.after is not None:
            return min(error.after, 4 * settings.longest_pause_seconds)
        longest = min(settings.longest_pause_seconds, settings.first_pause_seconds * 2 ** min(self._failures - 1, 30))
        return random.uniform(longest / 2, longest)
