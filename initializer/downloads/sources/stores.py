"""Connect to object stores as the environment says: credentials and endpoints by each ecosystem's usual variables.

obstore reads most of them by itself; here are those that it does not know, and what lets an endpoint be plain HTTP.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, Literal

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.telemetry.redaction import redact

StoreKind = Literal["s3", "gs", "az"]

HINTS: dict[StoreKind, str] = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_SKIP_SIGNATURE=true), AWS_REGION and AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (or GOOGLE_SKIP_SIGNATURE=true) and GOOGLE_BASE_URL",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN "
    "(or AZURE_SKIP_SIGNATURE=true)",
}
"""Which variables say who one is, and where the store is."""

_ENDPOINTS: dict[StoreKind, tuple[str, tuple[str, ...]]] = {
    "s3": ("endpoint", ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")),
    "gs": ("base_url", ("GOOGLE_BASE_URL", "STORAGE_EMULATOR_HOST")),
    "az": ("endpoint", ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")),
}
"""What obstore calls an endpoint, and the variables that name one; the first that is set counts."""

_CONNECTION_STRING = {
    "AccountName": "account_name",
    "AccountKey": "account_key",
    "SharedAccessSignature": "sas_key",
    "BlobEndpoint": "endpoint",
}
"""The parts of AZURE_STORAGE_CONNECTION_STRING that matter, and what obstore calls them."""


def connect(kind: StoreKind, bucket: str, settings: DownloadSettings, longest: float) -> Any:
    """Return obstore's client of a bucket. Nothing is sent yet.

    Args:
        kind: Which store.
        bucket: The bucket, or what Azure calls a container.
        settings: How to fetch.
        longest: How many seconds one request may take.

    Raises:
        DownloadError: What the variables say cannot be used.
    """
    from obstore.store import AzureStore, GCSStore, S3Store

    config = _azure() if kind == "az" else {}
    called, variables = _ENDPOINTS[kind]
    endpoint = next(filter(None, map(os.environ.get, variables)), config.get(called))
    client: dict[str, Any] = {
        "timeout": timedelta(seconds=longest),
        "connect_timeout": timedelta(seconds=settings.connect_seconds),
    }
    if endpoint:
        config[called] = endpoint if "://" in endpoint else f"http://{endpoint}"
        client["allow_http"] = config[called].startswith("http://")
    store: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[kind]
    try:
        return store(bucket, config=config, client_options=client, retry_config={"max_retries": 0})
    except Exception as error:  # noqa: BLE001  # obstore raises its own errors, and built-in ones
        raise DownloadError(
            f"{kind}://{bucket}: {first_line(error)}; credentials and endpoint come from {HINTS[kind]}"
        ) from None


def first_line(error: Exception) -> str:
    """Return what an error of obstore says, without what it goes on to say to its developers."""
    return redact(str(error)).strip().partition("\n")[0][:200]


def _azure() -> dict[str, str]:
    """Return what the variables of Azure's own command and libraries say."""
    config = {}
    if (account := os.environ.get("AZURE_STORAGE_ACCOUNT")) is not None:
        config["account_name"] = account
    if (key := os.environ.get("AZURE_STORAGE_KEY")) is not None:
        config["account_key"] = key
    suffix = ""
    for part in os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";"):
        name, equals, value = part.strip().partition("=")
        if name and not equals:
            raise DownloadError(
                "AZURE_STORAGE_CONNECTION_STRING cannot be read; it is written AccountName=…;AccountKey=…, with "
                "BlobEndpoint=… where the store is not Azure's own"
            )
        if name in _CONNECTION_STRING:
            config[_CONNECTION_STRING[name]] = value
        elif name == "EndpointSuffix":
            suffix = value
    if suffix and "account_name" in config:
        config.setdefault("endpoint", f"https://{config['account_name']}.blob.{suffix}")
    return config
