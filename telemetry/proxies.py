"""Addresses of this program that must not be reached through a proxy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def without_proxy(environment: Mapping[str, str], *hosts: str) -> Mapping[str, str]:
    """Return NO_PROXY and no_proxy with loopback and `hosts` added; empty where no proxy is configured.

    HTTP clients read one or the other, and treat loopback as any address (requests, urllib, curl, gRPC).

    Args:
        environment: The variables of the process that is not to use a proxy.
        hosts: Further addresses.
    """
    if not any(name.lower().endswith("_proxy") and value for name, value in environment.items()):
        return {}
    named = [part.strip() for name in ("no_proxy", "NO_PROXY") for part in environment.get(name, "").split(",")]
    if "*" in named:
        return {}
    value = ",".join(dict.fromkeys(part for part in (*named, *_LOOPBACK, *hosts) if part))
    return {"NO_PROXY": value, "no_proxy": value}
