from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.pods import Pod, pod_server
from tests.support.prometheus import RULES, Prometheus, prometheus

PODS = 20
FIRST = {number: 40.0 + 13 * number for number in range(PODS)}
"""The duration of the first start of each pod, in seconds."""

SECOND = {number: 500.0 + 10 * number for number in range(5)}
"""The duration of the second start of the pods that restart, in seconds."""

FAILING = (18, 19)
RUNNING, AGE = 17, 2000.0
"""The pod with a second start that does not end, and its age in seconds."""

MODELS = {number: "small" if number < 10 else "large" for number in range(PODS)}


@pytest.fixture(scope="package")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A real Prometheus that scrapes 20 pods, some of which restart or fail."""
    with pod_server() as server:
        server.pods = {number: Pod(model) for number, model in MODELS.items()}
        folder = tmp_path_factory.mktemp("pods")
        (folder / "rules.yml").write_text((RULES / "rules.yml").read_text())
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": server.targets("phasebus", PODS),
        }
        with prometheus(folder, config) as running:
            server.wait_for_scrapes(PODS)
            for number, pod in server.pods.items():
                if number in FAILING:
                    pod.fail(MemoryError("no"))
                else:
                    pod.finish(FIRST[number])
            server.wait_for_scrapes(PODS)
            server.pods |= {number: Pod(MODELS[number]) for number in SECOND}
            server.pods[RUNNING] = Pod(MODELS[RUNNING], age=AGE)
            server.pods[RUNNING].download(0)
            server.wait_for_scrapes(PODS)
            for number, seconds in SECOND.items():
                server.pods[number].finish(seconds)
            server.pods[RUNNING].download(10**6)
            server.wait_for_scrapes(PODS, times=3)
            yield running
