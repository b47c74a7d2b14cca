from __future__ import annotations

from functools import partial

import httpx

from phasebus.telemetry import Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.service import Limits, Server, build_app
from phasebus.telemetry.service.rates import RequestRate


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_requests_beyond_the_burst_are_rejected_until_time_passes() -> None:
    clock = Clock()
    rate = RequestRate(5.0, 20.0, clock)
    assert sum(rate.admits("10.0.0.1") for _ in range(1000)) == 20
    clock.now = 1.0
    assert sum(rate.admits("10.0.0.1") for _ in range(1000)) == 5
    clock.now = 1000.0
    assert sum(rate.admits("10.0.0.1") for _ in range(1000)) == 20


def test_one_client_takes_nothing_from_another() -> None:
    rate = RequestRate(5.0, 20.0, Clock())
    while rate.admits("10.0.0.1"):
        pass
    assert rate.admits("10.0.0.2")


def test_the_addresses_of_one_network_share_a_rate() -> None:
    rate = RequestRate(5.0, 20.0, Clock())
    admitted = [rate.admits(f"2001:db8::{number:x}") for number in range(1000)]
    assert sum(admitted) == 20
    assert rate.admits("2001:db8:0:1::1")
    assert rate.admits("fe80::1%eth0")


def test_the_number_of_remembered_addresses_is_limited() -> None:
    rate = RequestRate(5.0, 20.0, Clock())
    for number in range(5000):
        rate.admits(f"10.0.{number // 256}.{number % 256}")
    assert len(rate._buckets) == 1024


def test_a_client_with_too_many_requests_is_rejected_and_its_probes_are_answered() -> None:
    app = partial(build_app, Metrics("1"), Status(), Timeline(RunIdentity.fresh("n", {})))
    server = Server(app, limits=Limits(requests_per_second=0.0, burst=3.0))
    server.start()
    try:
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False, verify=False) as client:
            claims = [client.get("/metrics", headers={"X-Forwarded-For": f"10.0.0.{each}"}) for each in range(4)]
            assert [each.status_code for each in claims] == [200, 200, 200, 429]
            assert (claims[-1].headers["retry-after"], claims[-1].headers["connection"]) == ("1", "close")
            assert {client.get("/livez").status_code for _ in range(5)} == {200}
    finally:
        server.close()
