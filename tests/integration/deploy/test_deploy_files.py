"""The files in deploy/ are valid, and every name in them exists."""

from __future__ import annotations

import re
import subprocess
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from phasebus.initializer.node.config import load_config
from phasebus.telemetry import Metrics, Status, Timeline
from phasebus.telemetry.run import RunIdentity
from phasebus.telemetry.service import Server, build_app
from tests.support.dashboard import expression, targets
from tests.support.documented_names import known_metrics
from tests.support.kubernetes import tool
from tests.support.programs import ROOT, program

DEPLOY = ROOT / "deploy"
_METRIC = re.compile(r"\b(phasebus[_:][a-z0-9_:]+)")


def queries() -> list[tuple[str, str]]:
    return [(title, expression(target["expr"])) for title, target in targets()]


def test_the_compose_file_is_one() -> None:
    checked = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_compose_file_mounts_what_there_is_and_publishes_on_loopback_only() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert {"phasebus", "collector", "jaeger", "prometheus", "grafana"} <= set(services)
    for service in services.values():
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), mount
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), port


def scraped_hosts() -> list[str]:
    (static, _, _) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    return [target.partition(":")[0] for config in static["static_configs"] for target in config["targets"]]


def test_demo_serves_its_metrics_under_the_name_that_prometheus_uses() -> None:
    access = load_config(DEPLOY / "demo.yaml").service.access
    app = partial(build_app, Metrics("1"), Status(), Timeline(RunIdentity.fresh("n", {})))
    service = Server(app, "0.0.0.0", access=access)  # as in the file
    service.start()
    try:
        assert httpx.get(service.url, timeout=60).status_code == 200
        for host in scraped_hosts():
            answer = httpx.get(f"{service.url}/metrics", headers={"Host": f"{host}:9464"}, timeout=60)
            assert answer.status_code == 200, host
        assert httpx.get(f"{service.url}/metrics", headers={"Host": "evil.example"}, timeout=60).status_code == 421
    finally:
        service.close()


@pytest.mark.parametrize(("title", "query"), queries())
def test_every_query_of_the_dashboard_is_of_metrics_there_are(title: str, query: str) -> None:
    assert set(_METRIC.findall(query)) <= known_metrics(), title


def test_every_rule_is_of_metrics_there_are() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert set(_METRIC.findall(rule["expr"])) <= known_metrics(), rule


def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, (_, query) in enumerate(queries())]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = subprocess.run(
        [program("promtool", "prometheus"), "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
