"""What is in deploy/ is valid, and speaks of things there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from phasebus.initializer.node.config import load_config
from phasebus.telemetry import Metrics, Status, Timeline, names
from phasebus.telemetry.metrics import Metrics as Registry
from phasebus.telemetry.run import RunIdentity
from phasebus.telemetry.service import Server, build_app
from tests.support.programs import ROOT, program

DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "phasebus.json"
_METRIC = re.compile(r"\b(phasebus[_:][a-z0-9_:]+)")


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def known_metrics() -> set[str]:
    """Every metric that can be: those of all kinds of step, of the bus, of a cluster's hub, and those recorded by a rule."""
    known = {"phasebus_subscriber_errors_total", "phasebus_subscriber_calls_total", "phasebus_events_dropped_total"}
    registry = Registry("1")
    for duration in [*(kind.duration for kind in names.KINDS.values()), names.OTHER_KIND]:
        registry.duration(duration)
        known |= {f"{duration.name}_seconds_{part}" for part in ("bucket", "sum", "count")}
    for family in registry.registry.collect():
        known |= {family.name, f"{family.name}_total"}
    known |= {
        value[0]
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, tuple) and value and isinstance(value[0], str)
    }
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    return known | {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}


def queries() -> list[tuple[str, str]]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]


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


def test_the_manifests_are_valid_to_the_letter() -> None:
    checked = tool("kubernetes-validate", "--strict", DEPLOY / "kubernetes" / "node.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def containers(document: Any) -> list[dict[str, Any]]:
    if isinstance(document, dict):
        here: list[dict[str, Any]] = document.get("containers", [])
        return here + [each for value in document.values() for each in containers(value)]
    return [each for value in document for each in containers(value)] if isinstance(document, list) else []


@pytest.mark.parametrize("name", ["node.yaml", "rayservice.yaml"])
def test_every_probe_asks_a_path_that_the_service_answers_on_a_port_that_is_declared(name: str) -> None:
    service = Server(partial(build_app, Metrics("1"), Status(), Timeline(RunIdentity.fresh("n", {}))))
    service.start()
    probes = []
    for container in containers(list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))):
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
            if kind in container:
                asked = container[kind]["httpGet"]
                probes.append((kind, asked["path"]))
                assert ports[asked["port"]] == 9464
                assert httpx.get(f"{service.url}{asked['path']}", timeout=60).status_code in (200, 503)
    service.close()
    assert ("livenessProbe", "/livez") in probes
    assert ("readinessProbe", "/readyz") in probes


def test_the_ray_service_names_classes_that_there_are() -> None:
    document = yaml.safe_load((DEPLOY / "kubernetes" / "rayservice.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", "RayService")
    assert {"serveConfigV2", "rayClusterConfig"} <= set(document["spec"])
    (application,) = yaml.safe_load(document["spec"]["serveConfigV2"])["applications"]
    (config,) = application["args"]["llm_configs"]
    adapter = (ROOT / "initializer" / "integrations" / "ray_serve" / "adapter.py").read_text()
    for path in (config["callback_config"]["callback_class"], config["server_cls"]):
        module, _, name = path.rpartition(".")
        assert module == "phasebus.initializer.integrations.ray_serve"
        assert f"class {name}(" in adapter
    for name in config["callback_config"]["callback_kwargs"]:
        assert re.search(rf"\b{name}: ", adapter)


@pytest.mark.parametrize("name", ["demo.yaml", "kubernetes/node.yaml"])
def test_the_configurations_of_nodes_are_read(name: str, tmp_path: Path) -> None:
    first = next(iter(yaml.safe_load_all((DEPLOY / name).read_text())))
    text = first["data"]["node.yaml"] if "data" in first else (DEPLOY / name).read_text()
    path = tmp_path / "node.yaml"
    path.write_text(text)
    assert load_config(path).model


@pytest.mark.parametrize(("title", "query"), queries())
def test_every_query_of_the_dashboard_is_of_metrics_there_are(title: str, query: str) -> None:
    assert set(_METRIC.findall(query)) <= known_metrics(), title


def test_every_rule_is_of_metrics_there_are() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert set(_METRIC.findall(rule["expr"])) <= known_metrics(), rule


def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, (_, query) in enumerate(queries())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = subprocess.run(
        [program("promtool", "prometheus"), "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_images_base_and_command_are_what_the_make_targets_use() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert "deploy/environment/install run" in dockerfile
    assert 'ENTRYPOINT ["phasebus"]' in dockerfile
    assert "USER phasebus" in dockerfile
