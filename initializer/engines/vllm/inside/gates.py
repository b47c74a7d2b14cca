"""Waiting, with everything imported, for the model to be there."""

from __future__ import annotations

import time
import urllib.request
from http import HTTPStatus

WAITING = "wait_for_model"
"""The name of the step."""


def wait_at(url: str) -> None:
    """Return once the gate at `url` is open; at once if there is nobody to ask."""
    from vllm.tracing import instrument

    instrument(_wait, span_name=WAITING)(url)


def _wait(url: str) -> None:
    while True:
        began = time.monotonic()
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  # an address of phasebus's own
                if answer.status == HTTPStatus.OK:
                    return
        except OSError:
            return
        time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))
