"""Downloads through a proxy that breaks, stalls and damages connections."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from phasebus.initializer import DownloadError, FileFailed, FileFinished, FileProgress
from phasebus.initializer.downloads import DownloadSettings, fetch
from tests.support.downloads import QUICK, STALLING, noise, safetensors, tree, watched
from tests.support.fault_proxy import Fault, Kind, fault_proxy
from tests.support.hub_server import HubServer, Repository

pytestmark = pytest.mark.anyio

BIG = {"config.json": b"{}", "model.safetensors": safetensors(3_000_000)}


def port_of(hub: HubServer) -> int:
    return int(hub.url.rpartition(":")[2])


async def wait_until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # it comes true in another thread
        await anyio.sleep(0.005)


def settings_for(fault: Fault) -> DownloadSettings:
    return STALLING if fault.kind == "stall" else QUICK


def once(fault: Fault) -> Callable[[int], Fault]:
    return lambda number: fault if number == 0 else Fault()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", 0),
        Fault("reset", 1_500_000),
        Fault("truncate", 0),
        Fault("truncate", 1_500_000),
        Fault("stall", 0),
        Fault("stall", 1_500_000),
        Fault("flip", 1_500_000),
        Fault("status", status=429, headers="Retry-After: 0\r\n"),
        Fault("status", status=503),
        Fault("status", status=403),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status if fault.kind == 'status' else fault.after}",
)
async def test_fault_costs_one_retry_and_nothing_else(hub: HubServer, fault: Fault, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(BIG)
    with fault_proxy(port_of(hub), once(fault)) as proxy:
        hub.delivery = proxy.url
        async with watched() as seen:
            result = await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=settings_for(fault))
    assert result is not None
    assert tree(tmp_path / "there") == BIG
    counted = int(seen.of(FileFinished, "model.safetensors")[0].attributes["retries"])
    if fault.kind == "stall":
        assert result.retries >= counted >= 1
    else:
        assert result.retries == counted == 1


@pytest.mark.parametrize("kind", ["reset", "truncate", "stall"])
async def test_bytes_before_a_break_are_not_fetched_again(hub: HubServer, kind: Kind, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(BIG)
    fault = Fault(kind, 2_000_000)
    with fault_proxy(port_of(hub), once(fault)) as proxy:
        hub.delivery = proxy.url
        async with watched() as seen:
            result = await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=settings_for(fault))
    assert result is not None
    assert result.fetched <= result.bytes + 600_000


async def test_file_that_breaks_at_every_mebibyte_arrives(hub: HubServer, tmp_path: Path) -> None:
    content = {"config.json": b"{}", "big.bin": noise(12_000_000)}
    hub.repositories["org/name"] = Repository(content)
    patience = QUICK.model_copy(update={"attempts": 2})
    with fault_proxy(port_of(hub), lambda _: Fault("truncate", 1_600_000)) as proxy:
        hub.delivery = proxy.url
        async with watched() as seen:
            result = await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=patience)
    assert result is not None
    assert tree(tmp_path / "there") == content
    assert result.retries >= 7


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("reset", 500), "the connection broke|cannot connect"),
        (Fault("stall", 500), r"(next to no bytes arrived|did not answer) for 0\.5 s"),
        (Fault("status", status=503), "answered 503"),
    ],
    ids=["reset", "stall", "503"],
)
async def test_permanent_fault_is_an_error_with_file_and_cause(
    hub: HubServer, fault: Fault, message: str, tmp_path: Path
) -> None:
    hub.repositories["org/name"] = Repository(BIG)
    with fault_proxy(port_of(hub), lambda _: fault) as proxy:
        hub.delivery = proxy.url
        async with watched() as seen:
            with pytest.raises(
                DownloadError, match=rf"model.safetensors of hf://org/name .* 3 attempts: .*({message})"
            ):
                await fetch(
                    seen.bus,
                    "org/name",
                    destination=tmp_path / "there",
                    settings=settings_for(fault).model_copy(update={"attempts": 3}),
                )
    assert [each.outcome for each in seen.of(FileFailed, "model.safetensors")] == ["failed"]
    assert "model.safetensors" not in tree(tmp_path / "there")


async def test_retry_after_beyond_the_limit_is_not_waited_for(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(BIG)
    patient = Fault("status", status=429, headers="Retry-After: 86400\r\n")
    with fault_proxy(port_of(hub), once(patient)) as proxy:
        hub.delivery = proxy.url
        async with watched() as seen:
            with anyio.fail_after(120):
                await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path / "there") == BIG


async def test_file_replaced_meanwhile_is_not_mixed_with_the_old_one(hub: HubServer, tmp_path: Path) -> None:
    """Without a digest, the validator shows it."""
    first, second = noise(2_000_000, 1), noise(2_000_000, 2)
    hub.repositories["org/name"] = Repository({"big.bin": first})

    def plan(connection: int) -> Fault:
        """Break the connection that is asked for the size and the file; before the next, the file is another one."""
        if connection == 0:
            return Fault("truncate", 1_000_000)
        hub.repositories["org/name"] = Repository({"big.bin": second})
        return Fault()

    with fault_proxy(port_of(hub), plan) as proxy:
        url = f"{proxy.url}/org/name/resolve/main/big.bin"
        hub.delivery = proxy.url
        async with watched() as seen:
            await fetch(seen.bus, url, destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path / "there") == {"big.bin": second}


async def test_stalled_download_is_cancelled_at_once(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(BIG)
    with fault_proxy(port_of(hub), lambda _: Fault("stall", 1_000_000)) as proxy:
        hub.delivery = proxy.url
        patient = QUICK.model_copy(update={"stall_seconds": 600.0})
        async with watched() as seen, anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=patient))
            with anyio.fail_after(120):
                await wait_until(
                    lambda: any(each.done > 500_000 for each in seen.of(FileProgress, "model.safetensors"))
                )
                tasks.cancel_scope.cancel()
    assert {each.outcome for each in seen.of(FileFailed)} == {"cancelled"}
    async with watched() as again:
        hub.delivery = hub.url
        with anyio.fail_after(120):
            result = await fetch(again.bus, "org/name", destination=tmp_path / "there", settings=QUICK)
    assert result is not None
    assert result.resumed > 500_000
    assert again.of(FileFinished, "model.safetensors")[0].attributes["outcome"] == "resumed"
    assert tree(tmp_path / "there") == BIG


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_200_random_faults_never_leave_a_wrong_file(hub: HubServer, tmp_path: Path) -> None:
    content = {"config.json": b"{}", "a.bin": noise(400_000, 3), "model.safetensors": safetensors(700_000)}
    hub.repositories["org/name"] = Repository(content)
    chance = random.Random(7)
    faults = 0

    def plan(_: int) -> Fault:
        nonlocal faults
        if chance.random() < 0.3:
            return Fault()
        faults += 1
        kind: Kind = chance.choice(["reset", "truncate", "flip", "flip", "status", "stall"])
        if kind == "status":
            return Fault(kind, status=chance.choice([403, 429, 500, 503]))
        return Fault(kind, chance.randrange(800_000))

    hurried = QUICK.model_copy(update={"stall_seconds": 0.05})
    starts = failed = 0
    with fault_proxy(port_of(hub), plan) as proxy:
        hub.delivery = proxy.url
        while faults < 200:
            folder = tmp_path / f"there-{starts // 2}"  # every second start finds what another has left
            starts += 1
            async with watched() as seen:
                try:
                    await fetch(seen.bus, "org/name", destination=folder, settings=hurried)
                    assert tree(folder) == content
                except DownloadError:
                    failed += 1
            assert tree(folder).items() <= content.items()
    assert failed < starts  # half of them on a quiet machine; on a busy one more connections stall for as long
