"""A real Prometheus."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.programs import ROOT, free_port, program
from tests.support.waiting import wait_until

RULES = ROOT / "deploy" / "prometheus"
"""The folder with the configuration and the rules that are shipped."""


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        return httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()["data"]

    def query(self, query: str) -> list[tuple[Mapping[str, str], float]]:
        """The series that `query` comes to now, each with its labels and its value."""
        return [(each["metric"], float(each["value"][1])) for each in self.get("query", query=query)["result"]]

    def metrics(self) -> str:
        """Its own /metrics."""
        return httpx.get(f"{self.url}/metrics", timeout=30).text

    def firing(self) -> set[str]:
        return {each["labels"]["alertname"] for each in self.get("alerts")["alerts"] if each["state"] == "firing"}


@contextmanager
def prometheus(folder: Path, config: Mapping[str, Any]) -> Iterator[Prometheus]:
    """Run a Prometheus of this configuration, whose rule files are in `folder`, until the end of the block."""
    (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(config)))
    port = free_port()
    command = [
        program("prometheus", "prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    running = Prometheus(f"http://127.0.0.1:{port}")

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return httpx.get(f"{running.url}/-/ready").is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, "Prometheus is ready")
        yield running
    finally:
        process.terminate()
        process.wait(30)
