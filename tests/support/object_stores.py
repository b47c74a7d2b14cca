"""Object stores, each in a process of its own: moto's S3 server, which Google's client understands too, and Azurite."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import obstore
from obstore.store import AzureStore, S3Store

from tests.support.programs import ROOT, free_port, program
from tests.support.waiting import wait_until

_ACCESS, _SECRET = "AKIATESTTESTTESTTEST", "averysecretaveryverysecretkey"
_ACCOUNT = "devstoreaccount1"
_ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's own
)


class ObjectStore(ABC):
    """A running store, and the configuration of its clients.

    Attributes:
        kind: The scheme of its addresses.
        port: Where it listens, on loopback.
        secrets: Values that must appear nowhere.
    """

    kind: str
    secrets: tuple[str, ...]

    def __init__(self, port: int) -> None:
        self.port = port

    @abstractmethod
    def environment(self, port: int) -> Mapping[str, str]:
        """Return the variables that configure a client for the store, through `port`."""

    @abstractmethod
    def put(self, bucket: str, files: Mapping[str, bytes]) -> None:
        """Create a bucket unless it exists, and put objects into it."""


class S3(ObjectStore):
    """Amazon's protocol."""

    kind = "s3"
    secrets: tuple[str, ...] = (_ACCESS, _SECRET)

    def environment(self, port: int) -> Mapping[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": _ACCESS,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }

    def put(self, bucket: str, files: Mapping[str, bytes]) -> None:
        url = f"http://127.0.0.1:{self.port}"
        httpx.put(f"{url}/{bucket}", timeout=30).raise_for_status()
        config: Any = {"endpoint": url, "access_key_id": _ACCESS, "secret_access_key": _SECRET, "region": "us-east-1"}
        store = S3Store(bucket, config=config, client_options={"allow_http": True})
        for name, content in files.items():
            obstore.put(store, name, content)


class Google(S3):
    """A store for Google's client: moto's S3 server, because Google's XML API resembles S3.

    The client signs as a service account, which the server does not check.

    Args:
        port: Of an S3 server.
        folder: Where the account's file is written.
    """

    kind = "gs"

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(port)
        openssl = [program("openssl", "openssl"), "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt"]
        key = subprocess.run([*openssl, "rsa_keygen_bits:2048"], check=True, capture_output=True, text=True).stdout
        self._account = folder / "account.json"
        account = {"client_email": "tests@phasebus.invalid", "private_key_id": "1", "private_key": key}
        self._account.write_text(json.dumps({"type": "service_account", **account}))
        self.secrets = (key.splitlines()[1],)

    def environment(self, port: int) -> Mapping[str, str]:
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(self._account), "GOOGLE_BASE_URL": f"http://127.0.0.1:{port}"}


class Azure(ObjectStore):
    """Azure's blobs, configured by a connection string."""

    kind = "az"
    secrets = (_ACCOUNT_KEY,)

    def environment(self, port: int) -> Mapping[str, str]:
        parts = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": _ACCOUNT,
            "AccountKey": _ACCOUNT_KEY,
            "BlobEndpoint": f"http://127.0.0.1:{port}/{_ACCOUNT}",
        }
        return {"AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{name}={value}" for name, value in parts.items())}

    def put(self, bucket: str, files: Mapping[str, bytes]) -> None:
        url = f"http://127.0.0.1:{self.port}/{_ACCOUNT}"
        self._make(url, bucket)
        config: Any = {"endpoint": url, "account_name": _ACCOUNT, "account_key": _ACCOUNT_KEY}
        store = AzureStore(bucket, config=config, client_options={"allow_http": True})
        for name, content in files.items():
            obstore.put(store, name, content)

    def _make(self, url: str, container: str) -> None:
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        signed = "\n".join(f"{name}:{value}" for name, value in headers.items())
        text = f"PUT{12 * chr(10)}{signed}\n/{_ACCOUNT}/{_ACCOUNT}/{container}\nrestype:container"
        digest = hmac.digest(base64.b64decode(_ACCOUNT_KEY), text.encode(), hashlib.sha256)
        headers["Authorization"] = f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}"
        answer = httpx.put(f"{url}/{container}?restype=container", headers=headers, timeout=30)
        if answer.status_code != httpx.codes.CONFLICT:  # it is there
            answer.raise_for_status()


@contextmanager
def moto_server(folder: Path) -> Iterator[int]:
    """Run moto's server, with its log in `folder`; yield its port."""
    own = ROOT / ".venv-s3" / "bin" / "moto_server"
    command = str(own) if own.exists() else program("moto_server", "moto[server] from PyPI")
    port = free_port()
    with _running([command, "--host", "127.0.0.1", "--port", str(port)], folder / "moto.log", port):
        yield port


@contextmanager
def azurite(folder: Path) -> Iterator[int]:
    """Run Azurite, with its log in `folder`; yield its port."""
    own = ROOT / ".venv-azure" / "node_modules" / ".bin" / "azurite-blob"
    command = str(own) if own.exists() else program("azurite-blob", "azurite from npm")
    port = free_port()
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    with _running([command, *where, *options], folder / "azurite.log", port):
        yield port


@contextmanager
def _running(command: list[str], log: Path, port: int) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    try:
        wait_until(lambda: process.poll() is not None or _answers(port), f"{Path(command[0]).name} answers")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/")
    except httpx.TransportError:
        return False
    return True
