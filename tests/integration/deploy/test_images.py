"""The Dockerfiles: by hadolint, and built as far as that is possible without a Docker engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phasebus import __version__
from tests.support.kubernetes import tool
from tests.support.programs import ROOT

IMAGES = ROOT / "deploy" / "images"
DOCKERFILES = sorted(path.name for path in IMAGES.glob("*.Dockerfile"))
COMPILERS = re.compile(r"\b(gcc|g\+\+|clang|make|cmake|build-essential)\b")


def stages(name: str) -> list[list[str]]:
    """Return the instructions of each stage of a Dockerfile, without comments, an instruction a string."""
    text = re.sub(r"^\s*#.*\n", "", (IMAGES / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    instructions = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    begins = [number for number, line in enumerate(instructions) if line.startswith("FROM ")]
    return [instructions[begin:end] for begin, end in zip(begins, [*begins[1:], None], strict=True)]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfile_passes_hadolint(name: str) -> None:
    checked = tool("hadolint", "--failure-threshold", "info", IMAGES / name)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_image_is_built_in_two_stages_without_compilers_and_runs_as_a_user(name: str) -> None:
    build, final = stages(name)
    assert build[0].endswith(" AS build")
    assert [line for line in final if COMPILERS.search(line)] == []
    assert [line for line in final if line.startswith(("COPY", "ADD")) and "--from=build" not in line] == []
    assert [line for line in final if line.startswith("USER")][-1] == "USER 1000:1000"
    assert 'ENTRYPOINT ["phasebus"]' in final
    (labels,) = (line for line in final if line.startswith("LABEL "))
    for label in ("title", "description", "version", "licenses"):
        assert f"org.opencontainers.image.{label}=" in labels


def test_dependencies_are_installed_before_the_source_is_copied() -> None:
    build, _ = stages("cpu.Dockerfile")
    source = build.index("COPY . .")
    (dependencies,) = (number for number, line in enumerate(build) if "--requirement pyproject.toml" in line)
    assert dependencies < source
    assert build[source + 1 :] == ["RUN uv pip install --no-deps ."]
    for line in build[:source]:
        if line.startswith("COPY "):
            for path in line.split()[1:-1]:
                assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("name", DOCKERFILES)
def test_image_has_the_versions_of_the_project_and_of_its_tests(name: str) -> None:
    text = (IMAGES / name).read_text()
    assert f"ARG VERSION={__version__}\n" in text
    installed = (ROOT / "deploy" / "environment" / "install").read_text()
    (vllm,) = re.findall(r"vllm_version=(\S+)", installed)
    assert re.search(rf"ARG (VLLM=|BASE=vllm/vllm-openai:v){re.escape(vllm)}\n", text)


def test_what_the_build_context_has_is_enough_for_the_package(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            source, target = ROOT / line[1:], context / line[1:]
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, target, symlinks=True, ignore=ignored)
            else:
                shutil.copy(source, target)
    command: list[str | Path] = [
        *(Path(sys.prefix) / "bin" / "uv", "pip", "install", "--python", sys.executable, "--quiet"),
        *("--offline", "--no-deps", "--no-build-isolation", "--target", tmp_path / "site", context),
    ]
    installed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert installed.returncode == 0, installed.stderr
    paths = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*") if path.is_file()}
    for room in ("bus", "telemetry", "observers", "initializer"):
        sources = {
            f"phasebus/{path.relative_to(ROOT)}"
            for path in (ROOT / room).rglob("*.py")
            if "__pycache__" not in path.parts
        }
        assert sources <= paths
    assert "phasebus/telemetry/service/page/page.html" in paths
