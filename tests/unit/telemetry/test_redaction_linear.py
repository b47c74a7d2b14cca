"""Scanning takes time proportional to the text: the cost of a character is the same in short and in long text."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from phasebus.printable import printable_text
from phasebus.telemetry.redaction.text import scan

UNITS = [
    "a", "token-", "-1", "1.0", "hf_", "eyJ-", "eyJaaaaaaa.", "sk-", "://", "http://a:b@", "a@", "api_key=", "api_key: [",
    "api_key='", "\\", '"', '\\"', "Authorization: ", "cookie: a;", "bearer ", "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----", " ", "a\n - ", "token: is ", "--api-key ", "tokens=1.", "&sig=1",
    "a:b:", "api key: ", "{", "'token': '", "\x1b", "\udcff\r\n",
]  # fmt: skip


def seconds(unit: str, length: int) -> float:
    text = (unit * (length // len(unit) + 1))[:length]
    best = 1e9
    for _ in range(3 if length < 2**17 else 1):
        start = time.process_time()
        scan(printable_text(text))
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("unit", UNITS)
def test_scan_time_grows_in_proportion_to_the_text(unit: str) -> None:
    short, long = seconds(unit, 2**13), seconds(unit, 2**16)
    assert long < 20 * short + 0.05  # eight times the text; a quadratic scan takes 64 times as long


@pytest.mark.parametrize("unit", ["token-", "eyJ-", "http://a:b@", "api_key='"])
def test_scan_time_doubles_with_the_length_up_to_a_megabyte(unit: str) -> None:
    times = [seconds(unit, 2**power) for power in (17, 18, 19, 20)]
    for once, twice in pairwise(times):
        assert twice < 3 * once + 0.1
