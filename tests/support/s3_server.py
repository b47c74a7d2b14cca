"""A real S3 server: moto's, in a process and a virtual environment of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import obstore
from obstore.store import S3Store

from tests.support.programs import ROOT, free_port, program
from tests.support.waiting import wait_until

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "averysecretaveryverysecretkey",
    "AWS_REGION": "us-east-1",
}
"""What tells a client how to reach it, besides AWS_ENDPOINT_URL."""


class S3Server:
    """A running S3 server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def put(self, bucket: str, files: dict[str, bytes]) -> None:
        """Make a bucket, and put objects into it."""
        httpx.put(f"{self.url}/{bucket}", timeout=30).raise_for_status()
        store: Any = S3Store(
            bucket,
            config={
                "endpoint": self.url,
                "access_key_id": ENVIRONMENT["AWS_ACCESS_KEY_ID"],
                "secret_access_key": ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
                "region": ENVIRONMENT["AWS_REGION"],
            },
            client_options={"allow_http": True},
        )
        for name, content in files.items():
            obstore.put(store, name, content)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server on a free port, with its log in `folder`."""
    server = S3Server(free_port())
    own = ROOT / ".venv-s3" / "bin" / "moto_server"
    command = str(own) if own.exists() else program("moto_server", "moto[server] from PyPI")
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen([command, "--host", "127.0.0.1", "--port", str(server.port)], stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(server), "the S3 server answers")
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _answers(server: S3Server) -> bool:
    try:
        return httpx.get(f"{server.url}/moto-api/").is_success
    except httpx.TransportError:
        return False
