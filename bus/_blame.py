"""Whose error it was: a note on the error that names the callback."""

from __future__ import annotations

import asyncio

from phasebus.bus._loops import cancellation_requested


def blame(error: BaseException, note: str) -> bool:
    """Put `note` on `error`, once; return whether it is an error of the callback that raised it.

    A cancellation from outside, and what Python itself raises to end something (`KeyboardInterrupt`, `GeneratorExit`), is
    not. A ``CancelledError`` that nothing outside asked for is.
    """
    if isinstance(error, asyncio.CancelledError):
        if cancellation_requested():
            return False
    elif not isinstance(error, Exception | SystemExit):
        return False
    notes = getattr(error, "__notes__", None)
    if not (isinstance(notes, list) and note in notes):
        try:
            error.add_note(note)
        except Exception:  # noqa: BLE001  # such as a frozen dataclass: its class forbids what every exception has
            object.__setattr__(error, "__notes__", [*(notes or ()), note])
    return True


def forget_older_tracebacks(error: BaseException) -> None:
    """Cut from the traceback of an `error` that was raised and isolated before what is left of those earlier times.

    Python puts the frames of each raise in front of those of the last. The older part begins where the same two
    frames begin again: the publish, and what it called.
    """
    newest = error.__traceback__
    if newest is None or newest.tb_next is None:
        return
    publish, callback, at = newest.tb_frame.f_code, newest.tb_next.tb_frame.f_code, newest.tb_next
    while at.tb_next is not None:
        following = at.tb_next
        if (
            following.tb_frame.f_code is publish
            and following.tb_next is not None
            and following.tb_next.tb_frame.f_code is callback
        ):
            at.tb_next = None
            return
        at = following
