"""When a try is worth another."""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer import DownloadError
from phasebus.initializer.downloads import DownloadSettings
from phasebus.initializer.downloads.errors import CorruptError, TransferError
from phasebus.initializer.downloads.retries import Budget
from phasebus.initializer.downloads.sources.http import refusal

SETTINGS = DownloadSettings(attempts=4, first_pause_seconds=1, longest_pause_seconds=3)
BROKEN = TransferError("the connection broke")


def test_pauses_grow_up_to_the_longest_and_then_it_is_given_up() -> None:
    budget = Budget(SETTINGS)
    pauses = [budget.pause(BROKEN) for _ in range(4)]
    assert pauses[3] is None
    for pause, longest in zip(pauses[:3], (1, 2, 3), strict=True):
        assert pause is not None
        assert longest / 2 <= pause <= longest


@given(st.integers(1, 200))
def test_a_try_that_got_further_begins_a_new_row(times: int) -> None:
    budget = Budget(SETTINGS)
    assert all(budget.pause(BROKEN, gained=2**20) is not None for _ in range(times))


def test_a_corrupt_file_is_fetched_three_times_at_most() -> None:
    budget = Budget(SETTINGS)
    corrupt = CorruptError("its sha256 is 1, expected 2")
    assert [budget.pause(corrupt, gained=2**30) is None for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(("asked", "waited"), [(0.0, 0.0), (5.0, 5.0), (1e9, 12.0)])
def test_a_server_is_left_alone_as_long_as_it_asks_within_reason(asked: float, waited: float) -> None:
    assert Budget(SETTINGS).pause(TransferError("busy", after=asked)) == waited


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_worth_another_try(status: int) -> None:
    assert isinstance(refusal(status, None, "host"), TransferError)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 501])
def test_a_refusal_is_not(status: int) -> None:
    assert isinstance(refusal(status, None, "host"), DownloadError)


def test_a_signed_address_that_ran_out_is_worth_another_try() -> None:
    assert isinstance(refusal(403, None, "host", signed=True), TransferError)


def test_retry_after_is_seconds_or_a_date() -> None:
    def after(value: str) -> float | None:
        error = refusal(503, value, "host")
        assert isinstance(error, TransferError)
        return error.after

    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    assert after("7") == 7
    assert 50 < (after(format_datetime(soon)) or 0) <= 61
    assert after("Mon, 01 Jan 2001 00:00:00 GMT") == 0
    assert after("presently") is None
