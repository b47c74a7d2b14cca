"""Waiting until a Ray cluster answers."""

from __future__ import annotations

import socket

import anyio
import anyio.lowlevel
import pytest

from phasebus.initializer.ray.address import host_and_port, wait_until_it_answers

pytestmark = pytest.mark.anyio


_HOST = "127.0.0.2"


@pytest.fixture
def free_port() -> int:
    with socket.create_server((_HOST, 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("head:6379", ("head", 6379)),
        ("ray://head:10001", ("head", 10001)),
        ("[::1]:6379", ("::1", 6379)),
        ("auto", None),
        ("head", None),
        ("head:many", None),
        ("https://head:1", None),
        ("[:1", None),
    ],
)
def test_address_with_a_host_and_a_port_is_understood(address: str, found: tuple[str, int] | None) -> None:
    assert host_and_port(address) == found


async def test_address_where_nothing_listens_is_an_error_with_the_reason(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    reason, seconds = "", 0.05
    while "refused" not in reason and seconds < 60:  # a busy machine may not have tried yet when the time is over
        with pytest.raises(TimeoutError) as caught:
            await wait_until_it_answers(f"{_HOST}:{free_port}", seconds)
        reason, seconds = str(caught.value), 4 * seconds
    assert "refused" in reason
    assert f"no Ray cluster answers at {_HOST}:{free_port} yet" in caplog.text


async def test_cluster_that_starts_later_is_waited_for(
    free_port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phasebus.initializer.ray.address._PAUSE_SECONDS", 0.01)
    answered = anyio.Event()

    async def wait() -> None:
        await wait_until_it_answers(f"{_HOST}:{free_port}", 300)
        answered.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        with anyio.fail_after(60):
            while "answers at" not in caplog.text:
                await anyio.lowlevel.checkpoint()
            with socket.create_server((_HOST, free_port)):
                await answered.wait()


async def test_other_addresses_are_left_to_ray(caplog: pytest.LogCaptureFixture) -> None:
    await wait_until_it_answers("auto", 0)
    assert caplog.messages == []
