"""Which failures are retried, and after which pause."""

from __future__ import annotations

import datetime as dt
import time
from email.message import Message
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer import DownloadError
from phasebus.initializer.downloads import DownloadSettings
from phasebus.initializer.downloads.errors import CorruptError, TransferError
from phasebus.initializer.downloads.retries import RetryBudget
from phasebus.initializer.downloads.sources.headers import retry_after
from phasebus.initializer.downloads.sources.http import StatusError, error_of_status

SETTINGS = DownloadSettings(attempts=4, first_pause_seconds=1, longest_pause_seconds=3)
BROKEN = TransferError("the connection broke")


def status_error(status: int, *, signed: bool = False) -> Exception:
    return error_of_status(StatusError(status, Message(), "host", signed=signed))


def test_pauses_double_up_to_the_longest_until_attempts_run_out() -> None:
    budget = RetryBudget(SETTINGS)
    pauses = [budget.next_pause(BROKEN) for _ in range(4)]
    assert pauses[3] is None
    for pause, longest in zip(pauses[:3], (1, 2, 3), strict=True):
        assert pause is not None
        assert longest / 2 <= pause <= longest


@given(st.integers(1, 200))
def test_attempt_with_progress_resets_the_count(times: int) -> None:
    budget = RetryBudget(SETTINGS)
    assert all(budget.next_pause(BROKEN, gained=2**20) is not None for _ in range(times))


def test_corrupt_file_is_fetched_three_times_at_most() -> None:
    budget = RetryBudget(SETTINGS)
    corrupt = CorruptError("its sha256 is 1, expected 2")
    assert [budget.next_pause(corrupt, gained=2**30) is None for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(("requested", "pause"), [(0.0, 0.0), (5.0, 5.0), (1e9, 12.0)])
def test_pause_requested_by_the_server_is_kept_within_the_limit(requested: float, pause: float) -> None:
    assert RetryBudget(SETTINGS).next_pause(TransferError("busy", after=requested)) == pause


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 521, 530])
def test_status_of_a_busy_server_is_retried(status: int) -> None:
    assert isinstance(status_error(status), TransferError)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 501, 505, 511])
def test_status_of_a_refusal_is_not_retried(status: int) -> None:
    assert isinstance(status_error(status), DownloadError)


def test_expired_signed_address_is_retried() -> None:
    assert isinstance(status_error(403, signed=True), TransferError)


def headers_of(**values: str) -> Message:
    headers = Message()
    for name, value in values.items():
        headers[name.replace("_", "-")] = value
    return headers


def test_retry_after_is_seconds_or_a_date() -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    assert retry_after(headers_of(Retry_After="7")) == 7
    assert 50 < (retry_after(headers_of(Retry_After=format_datetime(soon))) or 0) <= 61
    assert retry_after(headers_of(Retry_After="Mon, 01 Jan 2001 00:00:00 GMT")) == 0


def test_rate_limit_of_the_hub_is_obeyed_without_retry_after() -> None:
    assert retry_after(headers_of(RateLimit='"api";r=0;t=55')) == 55
    assert retry_after(headers_of(RateLimit='"api";r=0;t=55', Retry_After="7")) == 7
    assert retry_after(headers_of(RateLimit='"api";r=0')) is None


@pytest.mark.parametrize(
    "headers", [{"RateLimit": '"resolvers";r=4990;t=200'}, {"X-RateLimit-Reset": "200"}, {"RateLimit-Reset": "200"}]
)
@pytest.mark.parametrize(("status", "pause"), [(429, 200.0), (503, None), (500, None)])
def test_only_a_refusal_for_a_rate_limit_waits_for_its_reset(
    headers: dict[str, str], status: int, pause: float | None
) -> None:
    failed = error_of_status(StatusError(status, headers_of(**headers), "host", signed=False))
    assert isinstance(failed, TransferError)
    assert failed.after == pause


@pytest.mark.parametrize("name", ["RateLimit-Reset", "X-RateLimit-Reset"])
def test_reset_of_a_rate_limit_is_seconds_or_a_time(name: str) -> None:
    assert retry_after(headers_of(**{name: "55"})) == 55
    assert 50 < (retry_after(headers_of(**{name: str(int(time.time()) + 60)})) or 0) <= 61
    assert retry_after(headers_of(**{name: "1000000001"})) == 0
    assert retry_after(headers_of(**{name: "soon"})) is None


@pytest.mark.parametrize("value", ["", "presently", "²", "-1", "9" * 400, "Mon, 01 Jan 99999 00:00:00 GMT"])
def test_malformed_retry_after_is_ignored(value: str) -> None:
    assert retry_after(Message()) is None
    assert retry_after(headers_of(Retry_After=value)) is None
