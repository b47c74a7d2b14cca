"""deploy/collector/collector.yaml, as far as it can be checked without that collector: its keys, values and pipelines.

Source: the READMEs of the OpenTelemetry Collector's receiver, processors and exporter, v0.120 to v0.162.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

PATH = Path(__file__).parents[2] / "deploy" / "collector" / "collector.yaml"

ADDRESS, DURATION, NUMBER, FLAG = (
    re.compile(r"[a-z0-9.-]+:\d{1,5}"),
    re.compile(r"\d+(?:ms|s|m)"),
    re.compile(r"[1-9]\d*"),
    re.compile(r"true|false"),
)
COMPONENTS: Mapping[str, Any] = {
    "receivers": {"otlp": {"protocols": {"http": {"endpoint": ADDRESS}, "grpc": {"endpoint": ADDRESS}}}},
    "processors": {
        "memory_limiter": {"check_interval": DURATION, "limit_mib": NUMBER, "spike_limit_mib": NUMBER},
        "batch": {"timeout": DURATION, "send_batch_size": NUMBER},
    },
    "exporters": {
        "otlp": {
            "endpoint": ADDRESS,
            "tls": {"insecure": FLAG},
            "retry_on_failure": {"initial_interval": DURATION, "max_interval": DURATION, "max_elapsed_time": DURATION},
            "sending_queue": {"queue_size": NUMBER},
        }
    },
}


def problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a configuration of a collector."""
    for kind, known in COMPONENTS.items():
        yield from _unknown(config.get(kind, {}), known, kind)
    (pipeline,) = config["service"]["pipelines"].values()
    for kind, used in pipeline.items():
        declared = set(config.get(kind, {}))
        yield from (f"{kind}: {name} is not declared" for name in used if name not in declared)
        yield from (f"{kind}: {name} is not used" for name in declared - set(used))
    if pipeline["processors"][:1] != ["memory_limiter"]:
        yield "the memory limiter is not the first processor"


def _unknown(value: Any, known: Any, path: str) -> Iterator[str]:
    if isinstance(known, re.Pattern):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not known.fullmatch(text):
            yield f"{path}: {value!r}"
        return
    for key, inner in value.items():
        if key in known:
            yield from _unknown(inner, known[key], f"{path}.{key}")
        else:
            yield f"{path}.{key} is unknown"


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    return loaded


def test_collector_configuration_has_known_components_that_are_all_used(config: dict[str, Any]) -> None:
    assert list(problems(config)) == []
    assert list(config["service"]["pipelines"]) == ["traces"]


def test_collector_retries_longer_than_it_pauses_and_bounds_its_memory(config: dict[str, Any]) -> None:
    retries, limiter = config["exporters"]["otlp"]["retry_on_failure"], config["processors"]["memory_limiter"]
    pause, total = (int(retries[key].removesuffix("s")) for key in ("max_interval", "max_elapsed_time"))
    assert total >= 10 * pause
    assert limiter["spike_limit_mib"] < limiter["limit_mib"]


def test_collector_listens_on_the_ports_that_the_other_deploy_files_name(config: dict[str, Any]) -> None:
    ports = {each["endpoint"].rpartition(":")[2] for each in config["receivers"]["otlp"]["protocols"].values()}
    folder = PATH.parents[1]
    named = {
        port
        for path in (folder / "compose.yaml", *(folder / "kubernetes").glob("*.yaml"))
        for port in re.findall(r"http://collector:(\d+)", path.read_text(encoding="utf-8"))
    }
    assert named
    assert named <= ports


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("processors", "memory_limiter", "limit_mb"), 5, "processors.memory_limiter.limit_mb is unknown"),
        (("processors", "batch", "timeout"), 500, "processors.batch.timeout: 500"),
        (("exporters", "otlp", "endpoint"), "jaeger", "exporters.otlp.endpoint: 'jaeger'"),
        (("service", "pipelines", "traces", "exporters"), ["otlphttp"], "exporters: otlphttp is not declared"),
        (("service", "pipelines", "traces", "processors"), ["batch"], "processors: memory_limiter is not used"),
        (
            ("service", "pipelines", "traces", "processors"),
            ["batch", "memory_limiter"],
            "the memory limiter is not the first processor",
        ),
    ],
)
def test_a_mistake_in_the_collector_configuration_is_found(
    config: dict[str, Any], path: tuple[str, ...], value: object, problem: str
) -> None:
    changed: Any = copy.deepcopy(config)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert problem in list(problems(changed))
