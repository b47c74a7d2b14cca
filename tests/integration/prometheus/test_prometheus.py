"""A real Prometheus, with the rules of deploy/, scraping a real service."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from phasebus.bus import StepFailed, StepFinished, StepStarted, SubscriberStats, new_step_id
from phasebus.observers import MetricsObserver
from phasebus.telemetry import Metrics, RunIdentity, Status, Timeline, names
from phasebus.telemetry.service import Server, build_app
from tests.support.counting import CountingBus
from tests.support.programs import program
from tests.support.prometheus import RULES, Prometheus, prometheus
from tests.support.waiting import wait_until

TRACE = "f" * 32


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    """The metrics of a start that has failed in every way."""
    metrics = Metrics("1")
    observer = MetricsObserver(metrics, TRACE)
    an_hour_ago = time.time_ns() - 3600 * 10**9
    observer.observe(StepStarted(step=new_step_id(), kind="node", name="n", attributes={"model": "m"}))
    observer.observe(StepStarted(step=new_step_id(), kind="phase", name="engine_init", time_ns=an_hour_ago))
    observer.observe(
        StepStarted(step=new_step_id(), kind="download", name="m", attributes={"model": "m", "source": "hf"})
    )
    observer.observe(StepFinished(step="a" * 16, kind="phase", name="placement_group", seconds=1.5))
    error = ValueError("no")
    for kind, name, attributes in (
        ("callback", "mine", {"phase": "pre_download"}),
        ("node", "n", {"model": "m"}),
    ):
        observer.observe(
            StepFailed(
                step=new_step_id(),
                kind=kind,
                name=name,
                seconds=1,
                outcome="failed",
                error=error,
                attributes=attributes,
            )
        )
    metrics.watch_bus(CountingBus(SubscriberStats(name="slow", role="observer", calls=5, errors=0, drops=3)))
    return metrics


@pytest.fixture(scope="module")
def scraping(metrics: Metrics, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    service = Server(partial(build_app, metrics, Status(), Timeline(RunIdentity.fresh("n", {}))))
    service.start()
    rules = yaml.safe_load((RULES / "rules.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        rule.pop("for", None)  # how long each waits is tested by promtool, which has time
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"] = config["scrape_configs"][:1]
    lost = Metrics("1")
    lost.ready.set(1)
    gone = Server(partial(build_app, lost, Status(), Timeline(RunIdentity.fresh("n", {}))))
    gone.start()
    targets = [f"127.0.0.1:{service.port}", f"127.0.0.1:{gone.port}"]
    config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    try:
        with prometheus(folder, config) as running:
            wait_until(lambda: len(running.query("phasebus_ready")) == 2, "Prometheus has scraped both")
            gone.close()
            yield running
    finally:
        gone.close()
        service.close()


def test_the_alerts_fire(scraping: Prometheus) -> None:
    expected = {
        "PhasebusStepStuck",
        "PhasebusDownloadStalled",
        "PhasebusCallbacksFailing",
        "PhasebusEventsDropped",
        "PhasebusStartUpFailed",
        "PhasebusNodeUnreachable",
    }
    wait_until(lambda: expected <= scraping.firing(), "the alerts fire")


def test_an_exemplar_leads_from_a_counter_to_the_trace(scraping: Prometheus) -> None:
    def exemplars() -> list[Any]:
        found: list[Any] = scraping.get(
            "query_exemplars",
            query="phasebus_phases_total",
            start="2000-01-01T00:00:00Z",
            end="2100-01-01T00:00:00Z",
        )
        return found

    wait_until(lambda: bool(exemplars()), "an exemplar has arrived")
    labels = [each["labels"] for series in exemplars() for each in series["exemplars"]]
    assert {"trace_id": TRACE, "span_id": "a" * 16} in labels


def test_the_recorded_ages_have_the_step_and_its_kind(scraping: Prometheus) -> None:
    wait_until(lambda: scraping.query("phasebus:step_age_seconds"), "the rule has been evaluated")
    ((labels, age),) = scraping.query("phasebus:step_age_seconds")
    assert (labels["kind"], labels["step"]) == ("phase", "engine_init")
    assert age > 3600


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "rules.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "rules.test.yml"],
    ],
)
def test_promtool_accepts_the_shipped_files(arguments: list[str]) -> None:
    checked = subprocess.run(
        [program("promtool", "prometheus"), *arguments], cwd=RULES, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("of_cluster", [False, True])
def test_promtool_accepts_the_metrics(of_cluster: bool) -> None:
    metrics = Metrics("1", of_cluster=of_cluster)
    metrics.describe_target({"service.name": "phasebus"})
    metrics.watch_bus(CountingBus(SubscriberStats(name="slow", role="observer", calls=5, errors=0, drops=3)))
    observer = MetricsObserver(metrics, TRACE)
    for kind in (*names.KINDS, "odd"):
        observer.observe(StepStarted(step=new_step_id(), kind=kind, name="runs"))
        observer.observe(StepFinished(step=new_step_id(), kind=kind, name="n", seconds=1))
        observer.observe(
            StepFailed(step=new_step_id(), kind=kind, name="n", seconds=1, outcome="failed", error=OSError())
        )
    body, _ = metrics.render("text/plain")
    checked = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"], input=body, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_scrape_during_the_shutdown_is_answered_or_refused_without_hanging() -> None:
    from concurrent.futures import ThreadPoolExecutor

    service = Server(partial(build_app, Metrics("1"), Status(), Timeline(RunIdentity.fresh("n", {}))))
    service.start()

    def scrape(_: int) -> str:
        try:
            return str(httpx.get(f"{service.url}/metrics", timeout=10).status_code)
        except httpx.TransportError as error:
            return type(error).__name__

    with ThreadPoolExecutor(8) as scrapers:
        scrapes = [scrapers.submit(scrape, number) for number in range(40)]
        service.close()
        answers = {each.result(30) for each in scrapes}
    assert not answers & {"ReadTimeout", "ConnectTimeout", "500"}


def test_the_configuration_for_kubernetes_scrapes_annotated_pods_once_with_their_labels(tmp_path: Path) -> None:
    """Debian's Prometheus has no discovery of pods: static targets with the labels that it would find stand in for it."""

    def pod(ip: str, scrape: str = "true", phase: str = "Running", app: str = "phasebus", init: str = "false") -> Any:
        meta = {
            "pod_annotation_prometheus_io_scrape": scrape,
            "pod_annotation_prometheus_io_port": "9464",
            "pod_phase": phase,
            "pod_container_init": init,
            "pod_ip": ip,
            "namespace": "prod",
            "pod_name": f"pod-{ip}",
            "pod_label_app_kubernetes_io_name": app,
        }
        labels = {f"__meta_kubernetes_{name}": value for name, value in meta.items()}
        host = f"[{ip}]" if ":" in ip else ip
        return {"targets": [f"{host}:1", f"{host}:2"], "labels": labels}

    config = yaml.safe_load((RULES / "kubernetes.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    job["static_configs"] = [
        pod("127.0.0.2"),
        pod("127.0.0.3", app=""),
        pod("fd00::7"),
        pod("127.0.0.4", scrape="false"),
        pod("127.0.0.5", phase="Succeeded"),
        pod("127.0.0.6", init="true"),
    ]
    (tmp_path / "rules.yml").write_text((RULES / "rules.yml").read_text())
    with prometheus(tmp_path, config) as running:
        wait_until(lambda: running.get("targets")["activeTargets"], "the targets are known")
        found = [each["labels"] for each in running.get("targets")["activeTargets"]]
    common = {"namespace": "prod"}
    assert sorted(found, key=lambda labels: str(labels["instance"])) == [
        {**common, "job": "phasebus", "pod": "pod-127.0.0.2", "instance": "127.0.0.2:9464"},
        {**common, "job": "kubernetes-pods", "pod": "pod-127.0.0.3", "instance": "127.0.0.3:9464"},
        {**common, "job": "phasebus", "pod": "pod-fd00::7", "instance": "[fd00::7]:9464"},
    ]
