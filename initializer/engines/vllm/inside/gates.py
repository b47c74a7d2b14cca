"""Waiting for the model, once everything is imported."""

from __future__ import annotations

import time
import urllib.request
from http import HTTPStatus
from http.client import HTTPException

WAITING = "wait_for_model"
"""The name of the step."""


def wait_at(url: str, token: str) -> None:
    """Return once the gate at `url` is open; at once if it cannot be reached."""
    from vllm.tracing import instrument

    instrument(_wait, span_name=WAITING)(url, token)


def _wait(url: str, token: str) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310  # our own address
    while True:
        began = time.monotonic()
        try:
            with direct.open(request, timeout=60) as answer:
                if answer.status == HTTPStatus.OK:
                    return
        except (OSError, HTTPException):
            return
        time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))
