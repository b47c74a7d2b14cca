"""One way of fetching files, run in a process of its own: ``download_contenders.py NAME SERVER FOLDER FILES``.

It prints, as JSON, how long it took without its imports, and by how much its peak of memory was above idle. Runs
with any Python that has what the contender needs, so nothing is imported at the top that only some have.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Fetch = Callable[[], object]
MODEL, BUCKET = "org/name", "bucket"


def phasebus_hub(server: str, folder: Path, names: list[str]) -> Fetch:
    """Ours, from the hub, with the hub's digests compared."""
    return _phasebus(f"hf://{MODEL}", folder)


def phasebus_s3(server: str, folder: Path, names: list[str]) -> Fetch:
    """Ours, from an object store, with checksums of our own."""
    return _phasebus(f"s3://{BUCKET}/", folder)


def _phasebus(model: str, folder: Path) -> Fetch:
    import anyio
    import obstore  # noqa: F401  # what is imported when it is first used, is imported before the clock starts
    from huggingface_hub import HfApi, hf_hub_url  # noqa: F401

    from phasebus.bus import Bus
    from phasebus.initializer.downloads import fetch

    anyio.run(anyio.sleep, 0)  # imports what runs the event loop

    async def main() -> object:
        async with Bus() as bus:
            return await fetch(bus, model, destination=folder)

    return lambda: anyio.run(main)


def snapshot_download(server: str, folder: Path, names: list[str]) -> Fetch:
    """What `hf download` does, without the start of its command."""
    from huggingface_hub import snapshot_download

    return lambda: snapshot_download(MODEL, local_dir=folder)


def obstore(server: str, folder: Path, names: list[str]) -> Fetch:
    """obstore as its documentation shows it: each object streamed into a file, all at once."""
    import asyncio

    import obstore as obs
    from obstore.store import S3Store

    store: Any = S3Store(
        BUCKET,
        config={"endpoint": server, "region": "us-east-1", "skip_signature": True},
        client_options={"allow_http": True, "timeout": "10m"},
    )

    async def one(name: str, slots: asyncio.Semaphore) -> None:
        async with slots:
            result = await obs.get_async(store, name)
            with (folder / name).open("wb") as file:  # as plainly as people write it
                async for block in result.stream():
                    file.write(block)

    async def main() -> None:
        slots = asyncio.Semaphore(32)
        await asyncio.gather(*(one(name, slots) for name in names))

    return lambda: asyncio.run(main())


def boto3(server: str, folder: Path, names: list[str]) -> Fetch:
    """boto3's transfer manager, a thread for each file."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}, max_pool_connections=64)
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1", config=config)

    def main() -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: client.download_file(BUCKET, name, str(folder / name)), names))

    return main


def floor(server: str, folder: Path, names: list[str]) -> Fetch:
    """Every byte read once and written once, over connections that are kept; nothing is checked."""
    own = threading.local()

    def connect() -> None:
        own.connection = http.client.HTTPConnection(server.removeprefix("http://"))
        own.buffer = memoryview(bytearray(2**19))

    def one(name: str) -> None:
        connection, buffer = own.connection, own.buffer
        connection.request("GET", f"/{BUCKET}/{name}")
        response = connection.getresponse()
        with (folder / name).open("wb", buffering=0) as file:
            while count := response.readinto(buffer):
                file.write(buffer[:count])

    def main() -> None:
        with ThreadPoolExecutor(8, initializer=connect) as threads:
            list(threads.map(one, names))

    return main


def main(name: str, server: str, folder: Path, names: list[str]) -> None:
    """Run one contender and print what it took."""
    fetch: Fetch = globals()[name](server, folder, names)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew: see proc(5)
    idle = _peak()
    start = time.perf_counter()
    fetch()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "memory": _peak() - idle}))


def _peak() -> int:
    """Return the most memory the process has had, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]))
