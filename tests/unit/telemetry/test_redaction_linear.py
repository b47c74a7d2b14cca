"""Scanning takes time proportional to the text: the cost of a character is the same in short and in long text."""

from __future__ import annotations

import gc
import time

import pytest

from phasebus.printable import printable_text
from phasebus.telemetry.redaction.text import scan

UNITS = [
    "a", "token-", "-1", "1.0", "hf_", "eyJ-", "eyJaaaaaaa.", "sk-", "://", "http://a:b@", "a@", "api_key=", "api_key: [",
    "api_key='", "\\", '"', '\\"', "Authorization: ", "cookie: a;", "bearer ", "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----", " ", "a\n - ", "token: is ", "--api-key ", "tokens=1.", "&sig=1",
    "a:b:", "api key: ", "{", "'token': '", "<a", "<Password>", "<token x", "</", "name: a value", "name=", "'token', ", "'a", "--a, ", "--token\n", "a(",
    "token(", "a\t", "ENV A ", "login a password ", "-u a:", "docker login a", "a%3A", "%22", "token is ", "a -> ", "value=", "value: a\n", "value='a", '"value": "a", ',
    "value=a,,,,", "<value>", "<value>a</value>", "<key>a</key> ", "Private-Lines: 1\n", "Private-MAC", "key=", "key: Ab1", "pass=Ab1",
    "mysql ", "mysql -p", "redis-cli ", "redis-cli -a ", "login ", "password for a is ", "unseal key 1: ", "jdbc:oracle:a:", "r'\\'", "pat",
    "-----END PRIVATE KEY-----", "a\n-----END PRIVATE KEY-----", "ab\n", "secret_", "secret_a", "dp.pt.", "K10a", "key-", "hooks.slack.com/services/", "\x1b", "\udcff\r\n",
    "A_B  ", "A_B  a", "A_B | a", "A_", "A_B</td>", "A_B]=", "--password-stdin ", "--password-stdin <<<a", "echo a", "echo a| ", "--a\0", "a: !a ",
]  # fmt: skip


def seconds(unit: str, length: int, times: int = 1) -> float:
    """Return the processor time of this thread only: other tests have left threads, and objects to search for garbage."""
    text = (unit * (length // len(unit) + 1))[:length]
    best = 1e9
    gc.disable()
    try:
        for _ in range(times):
            start = time.thread_time()
            scan(printable_text(text))
            best = min(best, time.thread_time() - start)
    finally:
        gc.enable()
    return best


@pytest.mark.parametrize("unit", UNITS)
def test_scan_time_grows_in_proportion_to_the_text(unit: str) -> None:
    limit = 20 * seconds(unit, 2**12) + 0.05  # for eight times the text; a quadratic scan takes 64 times as long
    assert seconds(unit, 2**15) < limit or seconds(unit, 2**15, times=3) < limit


@pytest.mark.parametrize("unit", ["token-", "eyJ-", "http://a:b@", "api_key='"])
def test_scan_time_grows_in_proportion_up_to_half_a_megabyte(unit: str) -> None:
    limit = 8 * seconds(unit, 2**17) + 0.1  # for four times the text; a quadratic scan takes 16 times as long
    assert seconds(unit, 2**19) < limit or seconds(unit, 2**19, times=3) < limit
