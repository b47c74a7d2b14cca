"""When to try again, and when to give up.

Our own in place of a library's: a file of many gigabytes may be interrupted any number of times as long as each try
brings it further, and a server may say how long it wants to be left alone. Libraries count tries of a function.
"""

from __future__ import annotations

import random
from typing import Final

from phasebus.initializer.downloads.errors import CorruptError, TransferError
from phasebus.initializer.downloads.settings import DownloadSettings

_FURTHER: Final = 2**20
"""A try that brought this many bytes has got further."""

_MOST_CORRUPT: Final = 3
"""How often a file may be corrupt: once by chance, once more by bad luck, then it is not chance."""


class Budget:
    """The tries one piece of work has left.

    Args:
        settings: How many there are, and the pauses between them.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._row = 0
        self._corrupt = 0

    def pause(self, error: TransferError, gained: int = 0) -> float | None:
        """Return how long to wait before the next try, in seconds; None to give up.

        Args:
            error: How the last try failed.
            gained: How many bytes it brought all the same.
        """
        settings = self._settings
        if isinstance(error, CorruptError):
            self._corrupt += 1
            if self._corrupt >= _MOST_CORRUPT:
                return None
        elif gained >= _FURTHER:
            self._row = 0
        self._row += 1
        if self._row >= settings.attempts:
            return None
        if error.after is not None:
            return min(error.after, 4 * settings.longest_pause_seconds)
        longest = min(settings.longest_pause_seconds, settings.first_pause_seconds * 2 ** (self._row - 1))
        return random.uniform(longest / 2, longest)
