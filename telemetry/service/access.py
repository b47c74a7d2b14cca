"""Which requests the service answers: those to a host name it is served under, with the token if one is needed."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE: Final = "phasebus_token"
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}")
_PRIVATE_DOMAINS: Final = (".localhost", ".internal", ".svc", ".svc.cluster.local")
PROBES: Final = ("/livez", "/readyz")
"""Paths that never need the token: a kubelet has none."""

PUBLIC_PATHS: Final = (*PROBES, "/metrics", "/sd")
"""Paths that are served without a token where none is set. Many a Prometheus cannot send one. Their labels are names of
models, nodes and steps, while the page also has arguments, paths and errors."""

_PUBLIC: Final = "phasebus.public"
"""The key of a request's scope that is there if the request needed a token for other paths and has none."""

NO_TOKEN: Final = "none"  # noqa: S105  # not a secret
"""In the place of a token: serve everything to every client that can reach the address."""

_PROTECTION: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
)

OWN_TOKEN: Final = secrets.token_urlsafe(24)
"""A token of this process, for services that it starts in other processes and reads itself, and for this user's programs on
this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may read the service.

    Attributes:
        hosts: Host names that it is served under, beside addresses, the machine's name, and names that exist in no public
            domain.
        token: The token that requests need, except those of the probes. None: on loopback no request needs one, and on
            another address only `PUBLIC_PATHS` are served. `NO_TOKEN`: no request needs one on any address.
        own_token: A further token, of the process that starts the service; valid also where `token` is None. If the address
            is not loopback and `token` is None, the programs of this user on this machine find it, too.
    """

    hosts: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    own_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Remove white space around the token: a secret made from a file has a line feed at its end, which no header can have."""
        object.__setattr__(self, "token", (self.token or "").strip() or None)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Access:
        """Return the values of PHASEBUS_HOSTS, separated by commas, and PHASEBUS_TOKEN."""
        hosts = tuple(host.strip() for host in environment.get("PHASEBUS_HOSTS", "").split(",") if host.strip())
        return cls(hosts=hosts, token=environment.get("PHASEBUS_TOKEN"))

    def or_else(self, other: Access) -> Access:
        """Return this, with `other` in the place of what is not set."""
        return replace(self, hosts=self.hosts or other.hosts, token=self.token or other.token)

    def is_closed_at(self, address: str) -> bool:
        """Return whether a service on this IP address serves only `PUBLIC_PATHS` to clients without `own_token`."""
        return self.token is None and not ipaddress.ip_address(address).is_loopback

    @property
    def credential(self) -> str | None:
        """The token, if it is one and not `NO_TOKEN`."""
        return None if self.token == NO_TOKEN else self.token


class AccessControl:
    """Answers requests of a page elsewhere with 421, those without the token with 401, and with 403 where it has none.

    Links from other sites open the page; other requests of their pages, which could only slow a start, are answered with
    403: browsers mark them (https://www.w3.org/TR/fetch-metadata/).

    A page of another site can reach this service under a name of its own that resolves to this machine (DNS rebinding),
    but not under an IP address, nor under a name in no public domain. Accepted are therefore all addresses, the machine's
    name, `Access.hosts`, and names of private networks: without a dot (``localhost``, a service of Docker Compose), of a
    service of Kubernetes, and below ``internal`` (``host.docker.internal``).

    The token is sent as ``Authorization: Bearer TOKEN``. A browser opens ``/?token=TOKEN`` once, and keeps it as a cookie.

    Args:
        app: The application.
        access: The host names and the token.
        address: The address that the service listens on.
    """

    def __init__(self, app: ASGIApp, access: Access, address: str = "127.0.0.1") -> None:
        self._app = app
        self._hosts = frozenset(host.lower().rstrip(".") for host in (*access.hosts, os.uname().nodename))
        self._token = access.credential
        self._tokens = [token.encode() for token in (access.credential, access.own_token) if token is not None]
        self._address = address
        self._is_open = access.credential is None and not access.is_closed_at(address)
        self._open_paths = PUBLIC_PATHS if self._token is None else PROBES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or have the application answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = host_of(headers.get(b"host", ""))
        if host and not is_address(host) and not is_private_name(host) and host not in self._hosts:
            message = f"this service is not served under the host name {host[:200]!r}; add it to service.hosts\n"
            await respond(send, 421, message)
        elif headers.get(b"sec-fetch-site") == "cross-site" and headers.get(b"sec-fetch-mode") != "navigate":
            await respond(send, 403, "this service answers no requests of pages of other sites\n")
        elif self._is_open or self._has_token(headers):
            await self._app(scope, receive, send)
        elif scope["path"] in self._open_paths:
            await self._app({**scope, _PUBLIC: True}, receive, send)
        elif self._token is None:
            await respond(send, 403, self._without_token())
        elif scope["method"] == "GET" and self._is_token(
            dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token", "")
        ):
            cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            location = scope.get("root_path", "") + scope["path"]
            await respond(send, 303, "", {"Set-Cookie": cookie, "Location": "/" + quote(location.lstrip("/\\"))})
        else:
            await respond(send, 401, "this service needs its token\n", {"WWW-Authenticate": "Bearer"})

    def _without_token(self) -> str:
        return (
            f"this service listens on {self._address}, which is not loopback, without a token: it serves the probes and "
            "/metrics only. Set service.token or PHASEBUS_TOKEN to a token for the page, or to 'none' to serve "
            "everything to every client\n"
        )

    def _has_token(self, headers: dict[bytes, str]) -> bool:
        scheme, _, credential = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(credential.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, candidate: str) -> bool:
        received = candidate.encode("utf-8", "replace")
        return any(hmac.compare_digest(received, token) for token in self._tokens)


def visible_status(scope: Mapping[str, Any], described: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a described state that the sender of a request may read: without the token no errors and names."""
    return {"status": described["status"]} if _PUBLIC in scope else described


def host_of(header: str) -> str:
    """Return the host of a Host header, without its port, in lower case."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.partition(":")
    return (name if not port or port.isdigit() else host).rstrip(".")


def is_address(host: str) -> bool:
    """Return whether `host` is an IP address."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_private_name(host: str) -> bool:
    """Return whether `host` is a name that cannot be registered: without a dot, or below a domain that is never public."""
    return _NAME.fullmatch(host) is not None or host.endswith(_PRIVATE_DOMAINS)


def _with_headers(send: Send) -> Send:
    """Return `send`, with headers that keep browsers from using a response in pages of other sites."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_PROTECTION]}
        await send(message)

    return sending


async def respond(send: Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    """Answer a request with `text`."""
    body = text.encode("utf-8", "backslashreplace")
    sent = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), **(headers or {})}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
