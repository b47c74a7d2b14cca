from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.values import MutexValue

from phasebus.telemetry import in_memory

_PROGRAM = """
from phasebus.telemetry import Metrics
from phasebus.telemetry.names import KINDS, PROGRESS
from prometheus_client import Counter
metrics = Metrics("1")
metrics.ready.set(1)
metrics.series(PROGRESS, {"kind": "node"}).inc()
for kind in KINDS:
    metrics.steps(kind, "name", {})
print(metrics.render("text/plain")[0].decode())
"""


def run(multiproc: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(multiproc)}
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_metrics_work_where_the_multiprocess_folder_does_not_exist(tmp_path: Path) -> None:
    done = run(tmp_path / "missing")
    assert done.returncode == 0, done.stderr
    assert 'phasebus_progress_bytes_total{kind="node"} 1.0' in done.stdout


def test_no_series_reaches_the_multiprocess_folder_of_another_application(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Counter", "Gauge", "Histogram", "Summary"])
def test_prometheus_client_creates_its_values_as_in_memory_metrics_expect(name: str) -> None:
    code = getattr(prometheus_client, name)._metric_init.__code__
    assert code.co_freevars == ()
    assert {"values", "ValueClass"} <= set(code.co_names)


def test_an_in_memory_metric_renders_like_the_original() -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    for library, registry in ((prometheus_client, theirs), (in_memory, ours)):
        library.Counter("a", "A.", ["x"], registry=registry).labels("1").inc(2)
        library.Summary("s", "S.", ["x"], registry=registry).labels("1").observe(1.5)
        library.Gauge("b", "B.", registry=registry).set(3)
        library.Histogram("c", "C.", ["x"], buckets=(1, 2), registry=registry).labels("1").observe(1.5)
    assert generate_latest(ours).decode().splitlines() == _without_created(generate_latest(theirs))
    assert isinstance(in_memory.Gauge("d", "D.", registry=None)._value, MutexValue)


def _without_created(text: bytes) -> list[str]:
    return [line for line in text.decode().splitlines() if "_created" not in line]
