"""The decision whether to retry a failed attempt, and after which pause.

Retry libraries limit the calls of a function. Here, a large file may be interrupted any number of times as long as each
attempt makes progress, and a server may request a pause.
"""

from __future__ import annotations

import random
from typing import Final

from phasebus.initializer.downloads.errors import CorruptError, TransferError
from phasebus.initializer.downloads.settings import DownloadSettings

_PROGRESS: Final = 2**20
"""Number of bytes by which an attempt must get further to reset the count of failed attempts."""

_MAX_CORRUPT: Final = 3
"""Number of corrupt downloads of a file after which the source itself is considered corrupt."""


class RetryBudget:
    """The remaining attempts of one request or file.

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
            gained: The number of bytes by which the attempt got further than all before it. A server without ranges
                sends the same bytes again and again, which is no progress.
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
