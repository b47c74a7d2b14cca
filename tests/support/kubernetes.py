"""The manifests in deploy/kubernetes, as kustomize renders them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.programs import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
BASES = ("vllm", "node", "rayservice")
OVERLAYS = ("gpu", "cpu", "prometheus-operator")
FOLDERS = ("models", *(f"{base}/{overlay}" for base in BASES for overlay in OVERLAYS))

Manifest = dict[str, Any]


def tool(name: str, *arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program of this virtual environment."""
    command = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@cache
def _rendered(folder: str) -> str:
    built = tool("kubectl", "kustomize", KUBERNETES / folder)
    assert built.returncode == 0, built.stderr
    return built.stdout


def manifests(folder: str, kind: str | None = None) -> list[Manifest]:
    """Return the manifests of a folder with a kustomization; with `kind`, those of that kind."""
    return [each for each in yaml.safe_load_all(_rendered(folder)) if kind in (None, each["kind"])]


def pod_templates(folder: str) -> list[Manifest]:
    """Return the templates of all pods that a folder's manifests make."""
    return [template for manifest in manifests(folder) for template in _templates(manifest)]


def _templates(value: Any) -> Iterator[Manifest]:
    if isinstance(value, dict):
        if "containers" in value.get("spec", ()):
            yield value
        else:
            for each in value.values():
                yield from _templates(each)
    elif isinstance(value, list):
        for each in value:
            yield from _templates(each)


def containers(folder: str) -> list[Manifest]:
    """Return the containers of all pods that a folder's manifests make."""
    return [container for pod in pod_templates(folder) for container in pod["spec"]["containers"]]


def application(folder: str) -> Manifest:
    """Return the configuration of the one model that a RayService serves."""
    (service,) = manifests(folder, "RayService")
    (only,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    (config,) = only["args"]["llm_configs"]
    found: Manifest = config
    return found


def node_file(folder: Path, kustomization: str = "node/gpu") -> Path:
    """Write the configuration of `phasebus up` that the pods of a kustomization mount; return its path."""
    (text,) = (
        each["data"]["node.yaml"] for each in manifests(kustomization, "ConfigMap") if "node.yaml" in each["data"]
    )
    path = folder / "node.yaml"
    path.write_text(text)
    return path
