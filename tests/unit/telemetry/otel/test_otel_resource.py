from __future__ import annotations

import os
from platform import node as host_name

from phasebus.telemetry import RunIdentity
from phasebus.telemetry.otel import TraceSettings, process_resource, run_resource

IDENTITY = RunIdentity.fresh("node-1", {})


def attributes(**environment: str) -> dict[str, object]:
    settings = TraceSettings.from_environment(environment)
    return dict(run_resource(IDENTITY, settings.resource, "1.2", environment).attributes)


def test_a_resource_names_service_process_host_and_run() -> None:
    found = attributes()
    assert found["service.name"] == "phasebus"
    assert found["service.version"] == "1.2"
    assert found["host.name"] == host_name()
    assert found["process.pid"] == os.getpid()
    assert found["phasebus.run"] == IDENTITY.run
    assert "k8s.pod.name" not in found


def test_the_users_attributes_win() -> None:
    found = attributes(OTEL_RESOURCE_ATTRIBUTES="service.name=gateway,host.name=h,service.instance.id=pod-7,team=x")
    assert (found["service.name"], found["host.name"], found["team"]) == ("gateway", "h", "x")
    assert found["service.instance.id"] == "pod-7"
    assert attributes(OTEL_SERVICE_NAME="mine")["service.name"] == "mine"
    assert attributes(OTEL_SERVICE_NAME="")["service.name"] == "phasebus"


def test_bytes_that_are_no_utf8_are_escaped() -> None:
    found = attributes(OTEL_SERVICE_NAME="a\udcffb", POD_NAME="p\udcff", OTEL_RESOURCE_ATTRIBUTES="te\udcffam=v")
    assert (found["service.name"], found["k8s.pod.name"], found["te\\udcffam"]) == ("a\\udcffb", "p\\udcff", "v")


def test_two_processes_of_one_node_have_different_instance_ids() -> None:
    assert attributes()["service.instance.id"] != attributes()["service.instance.id"]


def test_the_variables_of_the_downward_api_become_attributes() -> None:
    found = attributes(POD_NAME="p", NODE_NAME="n", K8S_NAMESPACE_NAME="ns")
    assert (found["k8s.pod.name"], found["k8s.node.name"], found["k8s.namespace.name"]) == ("p", "n", "ns")
    assert attributes(POD_NAME="p", OTEL_RESOURCE_ATTRIBUTES="k8s.pod.name=q")["k8s.pod.name"] == "q"


def test_an_engine_process_gets_the_runs_service_and_an_instance_of_its_own() -> None:
    own = run_resource(IDENTITY, {"service.name": "gateway", "team": "x"}, "1.2", {})
    received: dict[str, str | int] = {"service.name": "unknown_service:python", "vllm.process_id": 7}
    first = process_resource(received, own, local=True).attributes
    again = process_resource(received, own, local=True).attributes
    other = process_resource(received | {"vllm.process_id": 8}, own, local=True).attributes
    assert (first["service.name"], first["team"], first["process.pid"]) == ("gateway", "x", 7)
    assert first["phasebus.run"] == IDENTITY.run
    assert first["service.instance.id"] == again["service.instance.id"]
    assert len({own.attributes["service.instance.id"], *(r["service.instance.id"] for r in (first, other))}) == 3
    assert "service.version" not in first


def test_what_a_process_says_of_itself_is_kept() -> None:
    own = run_resource(IDENTITY, {}, "1.2", {})
    received = {"service.name": "theirs", "service.instance.id": "i", "host.name": "h"}
    assert received.items() <= dict(process_resource(received, own, local=True).attributes).items()


def test_a_process_on_another_machine_does_not_get_this_machines_name() -> None:
    own = run_resource(IDENTITY, {}, "1.2", {"POD_NAME": "p"})
    assert not {"host.name", "k8s.pod.name"} & set(process_resource({}, own, local=False).attributes)
