"""A real OpenTelemetry collector: rotel, from PyPI."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.programs import ROOT, free_port, without
from tests.support.waiting import wait_until


@contextmanager
def rotel(folder: Path, target: str, *options: str) -> Iterator[str]:
    """Run a collector that forwards spans to `target`; yield the URL that it receives OTLP over HTTP at.

    Args:
        folder: The folder for its log.
        target: The URL that it exports to, by OTLP over HTTP.
        options: More of its options.
    """
    found = sorted((ROOT / ".venv-otlp" / "lib").glob("python3*/site-packages/rotel/rotel-agent"))
    if not found:
        without("rotel is not installed: `make test` gets it where it may, else install rotel from PyPI")
    port = free_port()
    command = [str(found[0]), "start", "--otlp-http-endpoint", f"127.0.0.1:{port}"]
    command += ["--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}", "--exporter", "otlp", "--batch-timeout", "100ms"]
    command += ["--otlp-exporter-endpoint", target, "--otlp-exporter-protocol", "http", *options]
    with (folder / "rotel.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), "the collector answers")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        httpx.post(f"{url}/v1/traces", content=b"", headers={"Content-Type": "application/x-protobuf"}, timeout=10)
    except httpx.TransportError:
        return False
    return True
