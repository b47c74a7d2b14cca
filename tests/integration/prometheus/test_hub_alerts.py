"""The alerts of deploy/ on the series that a hub exports while a cluster downloads a model, by ``promtool test rules``."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from phasebus.initializer.cluster.hub.state import ClusterState
from tests.support.journal_lines import begun, ended, line, progressed
from tests.support.programs import program
from tests.support.prometheus import RULES

_INTERVAL = 15
_DOWNLOADED, _READY, _END = 1500, 1560, 2400
_MEBIBYTES_PER_INTERVAL = 50 * 2**20
_MODEL = {"model": "m", "source": "hf"}

Series = Mapping[str, Sequence[str]]


class SimulatedCluster:
    """A driver and two nodes whose journals arrive at a hub second by second.

    Args:
        stalls: When the downloads stop moving, in seconds; None if they do not.
    """

    def __init__(self, stalls: int | None = None) -> None:
        self.now = 0
        self.hub = ClusterState("1", clock=lambda: float(self.now))
        self._stalls = stalls
        self._offsets: dict[str, int] = {}
        self._bytes = 0

    def series(self) -> Series:
        """What Prometheus scrapes from the hub: the values of every series, one for each interval."""
        values: dict[str, list[str]] = {}
        for number, self.now in enumerate(range(0, _END, _INTERVAL)):
            self._advance()
            self.hub.refresh()
            for name, value in self._samples():
                values.setdefault(name, ["_"] * number).append(repr(value))
            for recorded in values.values():
                recorded.extend(["_"] * (number + 1 - len(recorded)))
        return values

    def _samples(self) -> Iterator[tuple[str, float]]:
        for metric in self.hub.metrics.registry.collect():
            for sample in metric.samples:
                labels = {**sample.labels, "job": "phasebus", "instance": "hub"}
                written = ", ".join(f'{key}="{value}"' for key, value in labels.items())
                yield f"{sample.name}{{{written}}}", sample.value

    def _advance(self) -> None:
        if self._stalls is None or self.now < self._stalls:
            self._bytes += _MEBIBYTES_PER_INTERVAL
        self._send("driver", self._lines_of_driver())
        for number in range(2):
            self._send(f"node-{number}", self._lines_of_node(number))

    def _lines_of_driver(self) -> bytes:
        step = "d" * 16
        if self.now == 0:
            return line("JournalOpened", format=1) + begun(step, "cluster", "cluster")
        if self.now == _READY and self._stalls is None:
            return ended(step, "cluster", "cluster", nodes=2) + line("JournalClosed")
        return b""

    def _lines_of_node(self, number: int) -> bytes:
        node, phase, download = (f"{number}{kind}" * 8 for kind in ("a", "b", "c"))
        attributes = {"node": f"node-{number}", "model": "m"}
        if self.now == 0:
            start = line("JournalOpened", format=1) + begun(node, "node", f"node-{number}", **attributes)
            return start + begun(phase, "phase", "download") + begun(download, "download", "m", **_MODEL)
        if self._stalls is None and self.now == _DOWNLOADED:
            end = ended(download, "download", "m", **_MODEL, bytes=self._bytes, retries=0)
            return end + ended(phase, "phase", "download")
        if self._stalls is None and self.now == _READY:
            return ended(node, "node", f"node-{number}", **attributes)
        if self.now < _DOWNLOADED:
            return progressed(download, "download", "m", self._bytes, attributes=_MODEL)
        return b""

    def _send(self, name: str, lines: bytes) -> None:
        self._offsets[name] = self.hub.receive(name, self._offsets.get(name, 0), lines, target="127.0.0.1:1")


def alerts() -> list[str]:
    groups = yaml.safe_load((RULES / "rules.yml").read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]


def run_promtool(
    folder: Path, series: Series, expected: Sequence[Mapping[str, Any]]
) -> subprocess.CompletedProcess[str]:
    """Evaluate the shipped rules on `series`; `expected` are the alerts that fire, and when."""
    test = {
        "rule_files": [str(RULES / "rules.yml")],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": f"{_INTERVAL}s",
                "input_series": [
                    {"series": 'up{job="phasebus", instance="hub"}', "values": f"1x{_END // _INTERVAL}"},
                    *({"series": name, "values": " ".join(values)} for name, values in series.items()),
                ],
                "alert_rule_test": list(expected),
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(test))
    command = [program("promtool", "prometheus"), "test", "rules", "test.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_healthy_download_on_a_cluster_leaves_every_alert_silent(tmp_path: Path) -> None:
    silent = [
        {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}
        for alert in alerts()
        for minute in range(_END // 60)
    ]
    checked = run_promtool(tmp_path, SimulatedCluster().series(), silent)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_download_that_stalls_on_a_cluster_fires_its_alert(tmp_path: Path) -> None:
    fires = {
        "eval_time": "20m",
        "alertname": "PhasebusDownloadStalled",
        "exp_alerts": [
            {
                "exp_labels": {"severity": "warning", "job": "phasebus", "instance": "hub", **_MODEL},
                "exp_annotations": {
                    "summary": "No byte of m has arrived at hub for three minutes",
                    "description": "A download from hf is in progress and does not advance.",
                    "runbook_url": "docs/runbooks/download-stalled.md",
                },
            }
        ],
    }
    before = {"eval_time": "5m", "alertname": "PhasebusDownloadStalled", "exp_alerts": []}
    checked = run_promtool(tmp_path, SimulatedCluster(stalls=600).series(), [before, fires])
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ["phasebus_cluster_progress_bytes_total", "phasebus_cluster_download_in_progress"])
def test_the_hub_exports_the_series_that_the_alert_for_stalled_downloads_reads(name: str) -> None:
    assert any(each.startswith(f"{name}{{") for each in SimulatedCluster().series())
