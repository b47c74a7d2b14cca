"""The files in deploy/ are valid, and every name in them exists."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from phasebus.initializer.cli.run import run
from phasebus.initializer.node.config import load_config
from phasebus.telemetry import Metrics, Status, Timeline, names
from phasebus.telemetry.run import RunIdentity
from phasebus.telemetry.service import Server, build_app
from tests.support.dashboard import expression, targets
from tests.support.programs import ROOT, program

DEPLOY = ROOT / "deploy"
_METRIC = re.compile(r"\b(phasebus[_:][a-z0-9_:]+)")


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def known_metrics() -> set[str]:
    """Every series that a node or a hub can export, and those recorded by a rule."""
    known = set()
    for row in names.all_families():
        for family in (row, row.of_cluster()):
            parts = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}.get(family.type, ("",))
            known |= {f"{family.name}{part}" for part in parts}
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    return known | {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}


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


@pytest.mark.parametrize("name", ["node.yaml", "vllm.yaml"])
def test_manifest_passes_the_strict_schema_of_kubernetes(name: str) -> None:
    checked = tool("kubernetes-validate", "--strict", DEPLOY / "kubernetes" / name)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def containers(document: Any) -> list[dict[str, Any]]:
    if isinstance(document, dict):
        here: list[dict[str, Any]] = document.get("containers", [])
        return here + [each for value in document.values() for each in containers(value)]
    return [each for value in document for each in containers(value)] if isinstance(document, list) else []


def manifests(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def test_node_probes_request_paths_and_ports_of_the_service() -> None:
    service = Server(partial(build_app, Metrics("1"), Status(), Timeline(RunIdentity.fresh("n", {}))))
    service.start()
    (container,) = containers(manifests("node.yaml"))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probed = {kind: container[kind]["httpGet"] for kind in PROBES if kind in container}
    for request in probed.values():
        assert ports[request["port"]] == 9464
        assert httpx.get(f"{service.url}{request['path']}", timeout=60).status_code in (200, 503)
    service.close()
    assert probed["livenessProbe"]["path"] == "/livez"
    assert probed["readinessProbe"]["path"] == "/readyz"


def test_vllm_probes_depend_on_vllm_alone_and_allow_an_hour_of_loading() -> None:
    (container,) = containers(manifests("vllm.yaml"))
    assert all(container[kind]["httpGet"] == {"path": "/health", "port": "openai"} for kind in PROBES)
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 3600


def test_kuberays_own_probes_are_not_replaced() -> None:
    found = containers(manifests("rayservice.yaml"))
    assert len(found) == 2
    assert [kind for container in found for kind in PROBES if kind in container] == []


def test_metrics_are_served_outside_of_each_pod_on_the_scraped_port() -> None:
    (node,) = [each for each in manifests("node.yaml") if each["kind"] == "ConfigMap"]
    service = yaml.safe_load(node["data"]["node.yaml"])["service"]
    assert (service["host"], service["port"]) == ("0.0.0.0", 9464)
    (vllm,) = containers(manifests("vllm.yaml"))
    assert {"name": "PHASEBUS_HOST", "value": "0.0.0.0"} in vllm["env"]
    (application,) = yaml.safe_load(manifests("rayservice.yaml")[0]["spec"]["serveConfigV2"])["applications"]
    (config,) = application["args"]["llm_configs"]
    assert config["callback_config"]["callback_kwargs"] == {"host": "0.0.0.0", "port": 9464}
    for name in ("node.yaml", "vllm.yaml", "rayservice.yaml"):
        assert 'prometheus.io/port: "9464"' in (DEPLOY / "kubernetes" / name).read_text()


def scraped_hosts() -> list[str]:
    (static, _) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    return [target.partition(":")[0] for config in static["static_configs"] for target in config["targets"]]


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        ("demo.yaml", scraped_hosts()),
        ("kubernetes/node.yaml", ["phasebus-node", "phasebus-node.default.svc.cluster.local", "10.1.2.3"]),
    ],
)
def test_metrics_are_served_under_the_names_that_scrapers_use(name: str, hosts: list[str], tmp_path: Path) -> None:
    access = load_config(node_file(name, tmp_path)).service.access
    app = partial(build_app, Metrics("1"), Status(), Timeline(RunIdentity.fresh("n", {})))
    service = Server(app, "0.0.0.0", access=access)  # as in the file
    service.start()
    try:
        assert httpx.get(service.url, timeout=60).status_code == (200 if name == "demo.yaml" else 403)
        for host in hosts:
            answer = httpx.get(f"{service.url}/metrics", headers={"Host": f"{host}:9464"}, timeout=60)
            assert answer.status_code == 200, host
        assert httpx.get(f"{service.url}/metrics", headers={"Host": "evil.example"}, timeout=60).status_code == 421
    finally:
        service.close()


def test_command_of_the_vllm_manifest_is_parsed_as_written() -> None:
    (container,) = containers(manifests("vllm.yaml"))
    assert container["command"] == ["phasebus", "run", "--"]
    context = run.make_context("run", [*container["command"][2:], *container["args"]])
    assert list(context.params["command"]) == container["args"]


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
    assert load_config(node_file(name, tmp_path)).model


def node_file(name: str, folder: Path) -> Path:
    """Return a file with the configuration of a node that is in `name`, alone or in a ConfigMap."""
    first = next(iter(yaml.safe_load_all((DEPLOY / name).read_text())))
    path = folder / "node.yaml"
    path.write_text(first["data"]["node.yaml"] if "data" in first else (DEPLOY / name).read_text())
    return path


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


def test_the_images_base_and_command_are_what_the_make_targets_use() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert "deploy/environment/install run" in dockerfile
    assert 'ENTRYPOINT ["phasebus"]' in dockerfile
    assert "USER phasebus" in dockerfile
