"""Reading the variables of an OTLP exporter.

Source: OpenTelemetry specification, "OTLP exporter configuration".
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

from phasebus.telemetry.otel.findings import Findings
from phasebus.telemetry.redaction import redact

DEFAULT_SECONDS: Final = 10.0
"""How long a request may take, in seconds."""

_SHORTEST_SECONDS: Final = 0.001
_LONGEST_SECONDS: Final = 2_147_483.0  # as milliseconds they fit into 31 bits, as sockets need

_SIGNAL_PATH: Final = re.compile("/v1/(traces|metrics|logs)$")

_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*=[ \t!#-+\--:<-\[\]-~]*")
"""A header that OpenTelemetry accepts: it would log any other one, with its value."""


class OtlpVariables:
    """Reads the OTLP variables; the one of a signal, such as TRACES, wins over the general one."""

    def __init__(self, environment: Mapping[str, str], findings: Findings, signal: str) -> None:
        self._environment = environment
        self._signal = signal
        self._findings = findings

    def __call__(self, name: str) -> str:
        """Return the value of a variable; "" if it is not set."""
        return self._environment.get(self.variable(name), "").strip()

    def choice(self, name: str, known: tuple[str, ...]) -> str:
        """Return a value, which is one of those known; by default the first one."""
        value = self(name).lower() or known[0]
        if value in known:
            return value
        repair = None if name == "PROTOCOL" else known[0]
        self._findings.reject(self.variable(name), value, f"it is none of {', '.join(known)}", known[0], repair)
        return known[0]

    def seconds(self, name: str) -> float:
        """Return a duration, in seconds."""
        value = self(name)
        try:
            seconds = float(value or DEFAULT_SECONDS)
        except ValueError:
            seconds = 0.0
        if _SHORTEST_SECONDS <= seconds <= _LONGEST_SECONDS:
            return seconds
        self._findings.reject(
            self.variable(name),
            value,
            "it is no number of seconds from 0.001 to 2147483",
            f"{DEFAULT_SECONDS:g}",
            repair="10",
        )
        return DEFAULT_SECONDS

    def headers(self) -> Mapping[str, str]:
        """Return the headers; what is none is left out, and its value is not logged: it is mostly a secret."""
        found: dict[str, str] = {}
        for number, item in enumerate(self("HEADERS").split(","), 1):
            if _HEADER.fullmatch(item.strip()):
                found |= parse_env_headers(item, liberal=True)
            elif item.strip():
                problem = f"item {number} of {self.variable('HEADERS')} is not NAME=VALUE in plain ASCII; it is ignored"
                self._findings.rejected.add(self.variable("HEADERS"))
                if problem not in self._findings.problems:
                    self._findings.problems.append(problem)
        return found

    def file(self, name: str) -> str | None:
        """Return the path of a file that can be read; None if there is none."""
        path = self(name)
        if not path or _is_readable(path):
            return path or None
        self._findings.reject(self.variable(name), path, "it cannot be read", "no such file")
        return None

    def variable(self, name: str) -> str:
        """Return the name of the variable that is read: that of the signal if it is set, or else the general one."""
        own = f"OTEL_EXPORTER_OTLP_{self._signal}_{name}"
        return own if self._environment.get(own) else f"OTEL_EXPORTER_OTLP_{name}"


def signal_url(endpoint: str, signal: str, findings: Findings) -> str:
    """Return the URL of a signal below `endpoint`, also if that has the path of a signal already, a common mistake.

    A query, which some servers need, stays at the end.
    """
    url = urlsplit(endpoint)
    path = url.path.rstrip("/")
    base = _SIGNAL_PATH.sub("", path).rstrip("/")
    if base != path:
        used = redact(url._replace(path=base).geturl()[:200])
        problem = f"OTEL_EXPORTER_OTLP_ENDPOINT is {redact(endpoint[:200])!r}; the path of a signal is appended to it. "
        problem += f"{used!r} is used"
        if problem not in findings.problems:
            findings.problems.append(problem)
    return url._replace(path=f"{base}/v1/{signal}", fragment="").geturl()


def flaw_of_endpoint(endpoint: str, protocol: str) -> str | None:
    """Return why the address of a collector cannot be used, in words; None if it can.

    gRPC accepts addresses without a scheme, and schemes of its own, such as ``unix:///path``.
    """
    try:
        url = urlsplit(endpoint)
        host, _ = url.hostname, url.port
    except ValueError as error:  # brackets without an IPv6 address, a port that is no number, …
        return f"it is no URL: {error}"
    if url.scheme in ("http", "https"):
        return None if host else "it names no host"
    return None if protocol == "grpc" else "it does not begin with http:// or https://"


def _is_readable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)
