"""Making a failing input smaller."""

from __future__ import annotations

from collections.abc import Callable


def shrunk(check: Callable[[bytes], None], data: bytes, most_checks: int = 2000) -> bytes:
    """Return a part of `data` for which `check` raises the same kind of exception, after at most `most_checks` calls.

    Parts of half the length are left out first, then of a quarter, and so on (Zeller, "delta debugging").
    """

    def raises(candidate: bytes) -> type[Exception] | None:
        try:
            check(candidate)
        except Exception as error:  # noqa: BLE001  # any is a failure
            return type(error)
        return None

    kind, left = raises(data), most_checks
    if kind is None:
        return data
    size = max(1, len(data) // 2)
    while True:
        at, smaller = 0, False
        while at < len(data) and left:
            left -= 1
            candidate = data[:at] + data[at + size :]
            if raises(candidate) is kind:
                data, smaller = candidate, True
            else:
                at += size
        if not left or (size == 1 and not smaller):
            return data
        size = max(1, size // 2)
