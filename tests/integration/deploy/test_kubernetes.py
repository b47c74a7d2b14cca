"""The manifests in deploy/kubernetes, rendered by kustomize, against the schemas and against what phasebus does."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from phasebus.initializer.cli.run import run
from phasebus.initializer.cli.up import up
from phasebus.initializer.node.config import load_config
from phasebus.telemetry import Metrics, Status, Timeline
from phasebus.telemetry.run import RunIdentity
from phasebus.telemetry.service import Access, Server, build_app
from tests.support.kubernetes import (
    BASES,
    FOLDERS,
    KUBERNETES,
    OVERLAYS,
    Manifest,
    application,
    containers,
    manifests,
    node_file,
    pod_templates,
    tool,
)
from tests.support.programs import ROOT

CRDS = "PHASEBUS_TEST_CRDS"
"""A folder with the CustomResourceDefinitions of KubeRay and of the Prometheus Operator, a YAML file each."""

OF_KUBERNETES = re.compile(r"v1|(apps|batch|networking\.k8s\.io)/v1")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
DEPLOYMENTS = [f"{base}/{overlay}" for base in ("vllm", "node") for overlay in OVERLAYS]
RAY_SERVICES = [f"rayservice/{overlay}" for overlay in OVERLAYS]


def test_manifests_pass_the_strict_schemas_of_kubernetes(tmp_path: Path) -> None:
    for folder in FOLDERS:
        own = [each for each in manifests(folder) if OF_KUBERNETES.fullmatch(each["apiVersion"])]
        # neither kustomize nor Kubernetes checks the pods of a custom resource before its operator makes them
        own += [{"apiVersion": "v1", "kind": "Pod", **pod} for pod in pod_templates(folder)]
        named = [{**each, "metadata": {"name": "x", **each["metadata"]}} for each in own]
        (tmp_path / f"{folder.replace('/', '-')}.yaml").write_text(yaml.safe_dump_all(named))
    checked = tool("kubernetes-validate", "--strict", *tmp_path.iterdir())
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.skipif(CRDS not in os.environ, reason=f"{CRDS} names no folder with CustomResourceDefinitions")
@pytest.mark.parametrize("base", BASES)
def test_custom_resources_pass_the_strict_schemas_of_their_operators(base: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schemas = {}
    for path in Path(os.environ[CRDS]).glob("*.yaml"):
        definition = yaml.safe_load(path.read_text())["spec"]
        for version in definition["versions"]:
            name = f"{definition['group']}/{version['name']}", definition["names"]["kind"]
            schemas[name] = strict(version["schema"]["openAPIV3Schema"])
    custom = [
        each for each in manifests(f"{base}/prometheus-operator") if not OF_KUBERNETES.fullmatch(each["apiVersion"])
    ]
    assert custom
    for each in custom:
        validator = jsonschema.Draft7Validator(schemas[each["apiVersion"], each["kind"]])
        assert [error.message for error in validator.iter_errors({**each, "metadata": {}})] == []


def strict(schema: Any) -> Any:
    """Return a schema of Kubernetes's structural kind as JSON schema, without unknown fields."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields")
    return {
        **({"additionalProperties": False} if closed else {}),
        **{key: strict(each) for key, each in schema.items()},
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_are_admitted_under_the_restricted_standard_with_a_read_only_root(folder: str) -> None:
    """The rules of https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    for pod in pod_templates(folder):
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] != 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in spec["volumes"]:
            assert set(volume) <= {"name", "configMap", "emptyDir", "persistentVolumeClaim"}
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"requests", "limits"} <= set(container["resources"])
            assert all("hostPort" not in port for port in container.get("ports", ()))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_that_is_written_to_is_on_a_volume(folder: str) -> None:
    for pod in pod_templates(folder):
        for container in pod["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
            writable = [path for path, mount in mounts.items() if not mount.get("readOnly")]
            assert "/tmp" in writable
            environment = {each["name"]: each.get("value", "") for each in container["env"]}
            assert environment["USER"]  # torch names a folder after it, and the user has no entry in /etc/passwd
            for name, value in environment.items():
                if name.endswith(("HOME", "_DIR", "_BASE")):
                    assert any(value == path or value.startswith(f"{path}/") for path in writable), name
            for path in writable:
                if folder != "models" or path != "/models":
                    assert "emptyDir" in volumes[mounts[path]["name"]]


@pytest.mark.parametrize("folder", [each for each in FOLDERS if each != "models"])
def test_models_are_mounted_read_only_and_loaded_from_where_the_job_puts_them(folder: str, tmp_path: Path) -> None:
    for pod in pod_templates(folder):
        (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "models")
        assert volume["persistentVolumeClaim"]["readOnly"] is True
        for container in pod["spec"]["containers"]:
            (mount,) = (each for each in container["volumeMounts"] if each["name"] == "models")
            assert (mount["mountPath"], mount["readOnly"]) == ("/models", True)
    (config,) = (each["data"]["fetch.yaml"] for each in manifests("models", "ConfigMap"))
    path = tmp_path / "fetch.yaml"
    path.write_text(config)
    fetched = str(load_config(path).download_destination)
    if folder.startswith("rayservice"):
        assert application(folder)["model_loading_config"]["model_source"] == fetched
    elif folder.startswith("node"):
        assert load_config(node_file(tmp_path, folder)).model == fetched
    else:
        assert fetched in containers(folder)[0]["args"]


@pytest.mark.parametrize("folder", DEPLOYMENTS)
def test_probes_allow_an_hour_of_loading_and_tolerate_a_busy_server(folder: str) -> None:
    (container,) = containers(folder)
    startup, liveness, readiness = (container[kind] for kind in PROBES)
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 3600
    assert liveness["httpGet"] == {"path": "/health", "port": "openai"}
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 180
    assert min(liveness["timeoutSeconds"], readiness["timeoutSeconds"]) >= 10
    assert readiness["failureThreshold"] >= 3
    (deployment,) = manifests(folder, "Deployment")
    assert deployment["spec"]["progressDeadlineSeconds"] > startup["periodSeconds"] * startup["failureThreshold"]


@pytest.mark.parametrize("folder", DEPLOYMENTS)
def test_probed_ports_and_paths_are_those_of_the_service(folder: str) -> None:
    (container,) = containers(folder)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"openai": 8000, "phasebus": 9464}
    service = Server(partial(build_app, Metrics("1"), Status(), Timeline(RunIdentity.fresh("n", {}))))
    service.start()
    try:
        for kind in PROBES:
            request = container[kind]["httpGet"]
            if request["port"] == "phasebus":
                assert httpx.get(f"{service.url}{request['path']}", timeout=60).status_code in (200, 503)
            else:
                assert request["path"] == "/health"  # vLLM's
    finally:
        service.close()


@pytest.mark.parametrize("folder", RAY_SERVICES)
def test_kuberays_own_probes_are_not_replaced(folder: str) -> None:
    found = containers(folder)
    assert [container["name"] for container in found] == ["ray-head", "ray-worker"]
    assert [kind for container in found for kind in PROBES if kind in container] == []


@pytest.mark.parametrize("folder", DEPLOYMENTS)
def test_requests_have_time_to_end_before_the_pod_is_killed(folder: str, tmp_path: Path) -> None:
    (pod,) = pod_templates(folder)
    (container,) = pod["spec"]["containers"]
    command, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    if folder.startswith("node"):
        serve = load_config(node_file(tmp_path, folder)).serve
        assert serve is not None
        drain = serve.drain_seconds
    else:
        (drain,) = (
            float(each.partition("=")[2]) for each in container["args"] if each.startswith("--shutdown-timeout=")
        )
    assert int(pause) + drain + 10 <= pod["spec"]["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("folder", [each for each in FOLDERS if each.endswith(("gpu", "operator"))])
def test_gpu_is_limited_tolerated_and_never_needed_twice(folder: str) -> None:
    limited = [pod for pod in pod_templates(folder) if "nvidia.com/gpu" in str(pod["spec"]["containers"])]
    (pod,) = limited
    assert pod["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    for deployment in manifests(folder, "Deployment"):
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("folder", [each for each in FOLDERS if each.endswith("cpu")])
def test_without_a_gpu_the_cache_has_a_size_and_nothing_needs_a_compiler(folder: str, tmp_path: Path) -> None:
    assert "nvidia.com" not in str(manifests(folder))
    if folder.startswith("rayservice"):
        config = application(folder)
        assert config["accelerator_type"] is None
        assert "VLLM_CPU_KVCACHE_SPACE" in config["runtime_env"]["env_vars"]
        assert config["engine_kwargs"]["enforce_eager"] is True
        return
    (container,) = containers(folder)
    assert "VLLM_CPU_KVCACHE_SPACE" in {each["name"] for each in container["env"]}
    if folder.startswith("node"):
        assert load_config(node_file(tmp_path, folder)).engine_args["enforce_eager"] is True
    else:
        assert "--enforce-eager" in container["args"]


@pytest.mark.parametrize("folder", DEPLOYMENTS)
def test_commands_are_parsed_as_written(folder: str) -> None:
    (container,) = containers(folder)
    words: list[str] = [*container["command"], *container.get("args", ())]
    program, name, *rest = words
    assert program == "phasebus"
    if name == "run":
        context = run.make_context("run", rest)
        assert list(context.params["command"]) == container["args"]
        assert container["args"][:2] == ["vllm", "serve"]
    else:
        assert str(up.make_context(name, rest).params["config"]) == "/etc/phasebus/node.yaml"


def environment(container: Manifest) -> dict[str, str]:
    """Return the environment that the kubelet makes of a container's variables, in the namespace `team`."""
    made: dict[str, str] = {}
    for each in container["env"]:
        if each.get("valueFrom", {}).get("fieldRef") == {"fieldPath": "metadata.namespace"}:
            made[each["name"]] = "team"
        elif "value" in each:
            made[each["name"]] = re.sub(r"\$\((\w+)\)", lambda match: made[match[1]], each["value"])
    return made


@pytest.mark.parametrize("folder", DEPLOYMENTS)
def test_metrics_are_served_under_the_names_that_scrapers_and_the_service_use(folder: str, tmp_path: Path) -> None:
    (container,) = containers(folder)
    variables = environment(container)
    if folder.startswith("node"):
        config = load_config(node_file(tmp_path, folder))
        host, access = config.service.host, config.service.access
        assert (config.service.port, config.serve and config.serve.host) == (9464, "0.0.0.0")
        access = access.or_else(Access.from_environment(variables))
    else:
        host, access = variables["PHASEBUS_HOST"], Access.from_environment(variables)
    (name,) = (
        each["metadata"]["name"] for each in manifests(folder, "Service") if each["spec"]["ports"][0]["port"] == 9464
    )
    app = partial(build_app, Metrics("1"), Status(), Timeline(RunIdentity.fresh("n", {})))
    service = Server(app, host, access=access)
    service.start()
    try:
        assert httpx.get(service.url, timeout=60).status_code == 403  # the page needs a token
        for asked in (name, f"{name}.team", f"{name}.team.svc", f"{name}.team.svc.cluster.local", "10.1.2.3"):
            answer = httpx.get(f"{service.url}/metrics", headers={"Host": f"{asked}:9464"}, timeout=60)
            assert answer.status_code == 200, asked
        assert httpx.get(f"{service.url}/metrics", headers={"Host": "evil.example"}, timeout=60).status_code == 421
    finally:
        service.close()


@pytest.mark.parametrize("folder", RAY_SERVICES)
def test_ray_service_names_classes_and_arguments_that_exist(folder: str) -> None:
    config = application(folder)
    adapter = (ROOT / "initializer" / "integrations" / "ray_serve" / "adapter.py").read_text()
    for path in (config["callback_config"]["callback_class"], config["server_cls"]):
        module, _, name = path.rpartition(".")
        assert module == "phasebus.initializer.integrations.ray_serve"
        assert f"class {name}(" in adapter
    arguments = config["callback_config"]["callback_kwargs"]
    assert arguments == {"host": "0.0.0.0", "port": 9464}
    for name in arguments:
        assert re.search(rf"\b{name}: ", adapter)


@pytest.mark.parametrize("folder", RAY_SERVICES)
def test_ray_service_has_a_worker_for_each_replica_that_serve_may_start(folder: str) -> None:
    (service,) = manifests(folder, "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    most = workers["maxReplicas"] if cluster.get("enableInTreeAutoscaling") else workers["replicas"]
    assert application(folder)["deployment_config"]["autoscaling_config"]["max_replicas"] <= most


@pytest.mark.parametrize("folder", [f"{base}/prometheus-operator" for base in BASES])
def test_pod_monitor_selects_every_pod_and_every_port_with_metrics(folder: str) -> None:
    (monitor,) = manifests(folder, "PodMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    scraped = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    for pod in pod_templates(folder):
        assert wanted.items() <= pod["metadata"]["labels"].items()
        assert monitor["spec"]["jobLabel"] in pod["metadata"]["labels"]
        for container in pod["spec"]["containers"]:
            names = {port["name"] for port in container["ports"]}
            assert names & scraped
            assert names - scraped <= {"gcs", "dashboard", "serve"}


def test_prometheus_rule_is_generated_from_the_rules_of_prometheus() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    generated = yaml.safe_load((KUBERNETES / "components" / "prometheus-operator" / "rules.yaml").read_text())
    assert generated["spec"] == rules, "run deploy/kubernetes/generate-rules"
    (rendered,) = manifests("node/prometheus-operator", "PrometheusRule")
    assert without_spaces(rendered["spec"]) == without_spaces(rules)


def without_spaces(value: Any) -> Any:
    """Return data with all white space of its texts as one space: kustomize writes folded texts with other line breaks."""
    if isinstance(value, dict):
        return {key: without_spaces(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_spaces(each) for each in value]
    return " ".join(value.split()) if isinstance(value, str) else value


def test_dashboard_is_in_the_config_map_that_grafanas_sidecar_finds() -> None:
    (dashboard,) = (
        each for each in manifests("node/prometheus-operator", "ConfigMap") if "phasebus.json" in each["data"]
    )
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    source = ROOT / "deploy" / "grafana" / "dashboards" / "phasebus.json"
    assert dashboard["data"]["phasebus.json"] == source.read_text()


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_pod_has_a_policy_that_admits_requests_scrapes_and_nothing_else(folder: str) -> None:
    policies = manifests(folder, "NetworkPolicy")
    for pod in pod_templates(folder):
        (policy,) = (
            each["spec"]
            for each in policies
            if each["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        )
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        admitted = {port["port"] for each in policy.get("ingress", ()) for port in each.get("ports", ())}
        if folder == "models":
            assert admitted == set()
        else:
            assert {8000, 9464} <= admitted
        for rule in policy["egress"]:
            assert "to" in rule or {port["port"] for port in rule["ports"]} <= {53, 443}
            assert folder == "models" or 443 not in {port["port"] for port in rule.get("ports", ())}


def test_every_kustomization_is_rendered_by_these_tests() -> None:
    found = {str(path.parent.relative_to(KUBERNETES)) for path in KUBERNETES.rglob("kustomization.yaml")}
    assert found == {*FOLDERS, *(f"{base}/base" for base in BASES), "components/prometheus-operator"}
