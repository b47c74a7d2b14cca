"""What an API server and the kubelet check beyond the schemas: names that refer to one another, and the forms of names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.kubernetes import FOLDERS, Manifest, containers, manifests, pod_templates

LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PORT = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def unique(names: Iterator[str] | list[str]) -> set[str]:
    """Return the names as a set; fail if there is one twice."""
    found = list(names)
    assert sorted(found) == sorted(set(found))
    return set(found)


def objects(folder: str, kind: str) -> set[str]:
    return {each["metadata"]["name"] for each in manifests(folder, kind)}


def labels_of(template: Manifest) -> dict[str, str]:
    labels: dict[str, str] = template["metadata"]["labels"]
    return labels


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_and_labels_have_the_forms_that_kubernetes_accepts(folder: str) -> None:
    for each in manifests(folder):
        assert NAME.fullmatch(each["metadata"]["name"]), each["metadata"]
    for template in [*manifests(folder), *pod_templates(folder)]:
        for value in template["metadata"].get("labels", {}).values():
            assert LABEL.fullmatch(value), value
    for container in containers(folder):
        assert NAME.fullmatch(container["name"])
        names = unique([port["name"] for port in container.get("ports", ())])
        assert all(PORT.fullmatch(name) for name in names), names
        assert all(VARIABLE.fullmatch(name) for name in unique([each["name"] for each in container["env"]]))


@pytest.mark.parametrize("folder", FOLDERS)
def test_mounts_refer_to_volumes_and_volumes_to_objects_that_exist(folder: str) -> None:
    claims = objects("models", "PersistentVolumeClaim")
    configs = objects(folder, "ConfigMap")
    for pod in pod_templates(folder):
        volumes = unique([volume["name"] for volume in pod["spec"]["volumes"]])
        for container in pod["spec"]["containers"]:
            mounts = container["volumeMounts"]
            unique([mount["mountPath"] for mount in mounts])
            assert {mount["name"] for mount in mounts} == volumes
        for volume in pod["spec"]["volumes"]:
            assert volume.get("configMap", {}).get("name") in {None, *configs}
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}


@pytest.mark.parametrize("folder", FOLDERS)
def test_selectors_select_pods_and_services_name_their_ports(folder: str) -> None:
    for deployment in manifests(folder, "Deployment"):
        spec: Any = deployment["spec"]
        assert spec["selector"]["matchLabels"].items() <= labels_of(spec["template"]).items()
    for service in manifests(folder, "Service"):
        selected = [
            pod for pod in pod_templates(folder) if service["spec"]["selector"].items() <= labels_of(pod).items()
        ]
        assert selected, service["metadata"]["name"]
        unique([port["name"] for port in service["spec"]["ports"]])
        for pod in selected:
            ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
