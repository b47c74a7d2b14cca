"""Which engine observes a command, and what the launcher of vLLM offers beside the protocol."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from phasebus.bus import Bus
from phasebus.initializer.cli.doctor import software
from phasebus.initializer.engines import registry
from phasebus.initializer.engines.none import NoEngine
from phasebus.initializer.engines.optional import (
    Check,
    CommandLauncher,
    CommandObserver,
    EngineObserver,
    InspectableLauncher,
    ObservableLauncher,
    Versions,
)
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.registry import find_command_observer, find_observer
from phasebus.initializer.engines.vllm.inside.processes import process_start_step_id
from phasebus.initializer.engines.vllm.launch import VLLM
from phasebus.initializer.engines.vllm.observer import VLLMCommandObserver, VLLMObserver
from phasebus.initializer.seams import Seam
from phasebus.telemetry import StepNotice, Telemetry

OPTIONAL = (ObservableLauncher, CommandLauncher, InspectableLauncher)
ECHO: Any = SimpleNamespace(name="echo")


class Echo(NoEngine):
    """A launcher of another package, with the optional methods for commands and for the doctor."""

    def recognizes(self, arguments: Sequence[str]) -> bool:
        return arguments[0] == "echo-server"

    def command_observer(self, arguments: Sequence[str]) -> CommandObserver:
        observer: CommandObserver = ECHO
        return observer

    def versions(self) -> Versions:
        return Versions(title="Echo", installed="1.0.0", minimum=(1, 0), supported=("1.0.0",))

    def missing_seams(self) -> Sequence[Seam]:
        return [Seam("echo", "shout", "the volume")]

    def plugin_checks(self) -> Sequence[Check]:
        return [Check(name="ECHO_PLUGINS", value="is set", level="note", advice="unset it")]


class Broken(NoEngine):
    def recognizes(self, arguments: Sequence[str]) -> bool:
        raise ValueError("no such command")

    def command_observer(self, arguments: Sequence[str]) -> CommandObserver:
        raise AssertionError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The entry points of other packages; a test may add to them."""
    module: Any = ModuleType("third_engines")
    module.Plain, module.Echo, module.Broken = NoEngine, Echo, Broken
    monkeypatch.setitem(sys.modules, "third_engines", module)
    entries: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    registry._installed.cache_clear()
    yield entries
    registry._installed.cache_clear()


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, registry.GROUP)


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry(port=None, environment={})
    yield telemetry
    telemetry.relay.close()


def test_launcher_of_vllm_has_all_optional_methods_and_none_has_none() -> None:
    assert [isinstance(VLLM(), each) for each in OPTIONAL] == [True] * 3
    assert [isinstance(NoEngine(), each) for each in OPTIONAL] == [False] * 3


def test_default_engine_is_observed_where_a_library_starts_it() -> None:
    observer: EngineObserver = find_observer()
    assert isinstance(observer, VLLMObserver)
    assert observer.name == registry.DEFAULT_ENGINE


def test_engine_without_an_observer_is_an_error_where_a_library_starts_it() -> None:
    with pytest.raises(EngineError, match="the engine 'none' cannot be observed"):
        find_observer("none")


def test_command_of_a_built_in_engine_asks_no_other_package(
    installed: list[EntryPoint], caplog: pytest.LogCaptureFixture
) -> None:
    installed.append(entry("absent", "no_such_module:Launcher"))
    observer = find_command_observer(("env", "A=b", "vllm", "serve", "org/m"))
    assert isinstance(observer, VLLMCommandObserver)
    assert (observer.name, observer.model) == (registry.DEFAULT_ENGINE, "org/m")
    assert not caplog.records


def test_command_that_another_engine_recognizes_is_observed_by_it(installed: list[EntryPoint]) -> None:
    installed += [entry("a-plain", "third_engines:Plain"), entry("echo", "third_engines:Echo")]
    assert find_command_observer(("echo-server", "m")) is ECHO


def test_command_that_no_engine_recognizes_is_observed_by_the_default_one(installed: list[EntryPoint]) -> None:
    installed += [entry("a-plain", "third_engines:Plain"), entry("echo", "third_engines:Echo")]
    observer = find_command_observer(("python", "serve.py"))
    assert isinstance(observer, VLLMCommandObserver)
    assert observer.model == ""


def test_engine_that_fails_to_recognize_is_left_out_with_a_warning(
    installed: list[EntryPoint], caplog: pytest.LogCaptureFixture
) -> None:
    installed += [entry("absent", "no_such_module:Launcher"), entry("broken", "third_engines:Broken")]
    installed.append(entry("echo", "third_engines:Echo"))
    with caplog.at_level(logging.WARNING):
        assert find_command_observer(("echo-server", "m")) is ECHO
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == ["absent", "broken"]


def test_two_packages_with_one_name_leave_the_built_in_engines(installed: list[EntryPoint]) -> None:
    installed += [entry("echo", "third_engines:Echo"), entry("echo", "third_engines:Broken")]
    assert isinstance(find_command_observer(("echo-server", "m")), VLLMCommandObserver)


def test_command_of_vllm_loads_the_plugin_and_reports_below_its_step(telemetry: Telemetry) -> None:
    observer = VLLMCommandObserver(["vllm", "serve", "m", "--otlp-traces-endpoint", "http://c:4317"])
    variables = observer.environment(telemetry, "a" * 16, {"VLLM_PLUGINS": "other"}, gate=True)
    assert variables["VLLM_PLUGINS"] == "other,phasebus"
    assert variables["TRACEPARENT"].split("-")[2] == "a" * 16
    assert variables["PHASEBUS_GATE_URL"] == telemetry.relay.gate_url
    assert variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "http://c:4317"
    assert "PHASEBUS_GATE_URL" not in observer.environment(telemetry, "a" * 16, {}, gate=False)


def test_vllm_of_a_library_exports_where_its_argument_names(telemetry: Telemetry) -> None:
    variables = VLLMObserver().environment(telemetry, {}, {"otlp_traces_endpoint": "http://c:4317"})
    assert variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "http://c:4317"
    variables = VLLMObserver().environment(telemetry, {}, {})
    assert variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == telemetry.relay.url


def test_notice_of_a_started_command_has_the_id_that_its_plugin_ends() -> None:
    notice = VLLMCommandObserver(["vllm", "serve", "m"]).process_started(7, 1, "c" * 32, "b" * 16)
    assert notice.step == process_start_step_id(7, "c" * 32)
    assert (notice.event, notice.name, notice.pid, notice.parent) == ("started", "start_process", 7, "b" * 16)


@pytest.mark.anyio
async def test_command_without_a_server_is_never_healthy() -> None:
    assert not await VLLMCommandObserver(["sleep", "1"]).is_healthy()
    assert not await VLLMCommandObserver([]).is_healthy()


def test_doctor_describes_every_engine_that_describes_itself(
    installed: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed += [entry("absent", "no_such_module:Launcher"), entry("a-plain", "third_engines:Plain")]
    installed.append(entry("echo", "third_engines:Echo"))
    versions = {finding.name: finding for finding in software.find_versions()}
    assert [name for name in versions if name in ("vLLM", "Echo", "Ray")] == ["vLLM", "Echo", "Ray"]
    assert versions["Echo"].value == "1.0.0 (supported: 1.0.0 to 1.0.0)"
    monkeypatch.setattr(VLLM, "missing_seams", lambda _: ())  # which reads all of its source
    seams = {finding.name: finding for finding in software.find_seams()}
    assert seams["Echo"].advice == "without them: the volume"
    (check,) = (finding for finding in software.find_plugin() if finding.name == "ECHO_PLUGINS")
    assert (check.topic, check.level, check.advice) == ("plugin", "note", "unset it")


@pytest.mark.anyio
@pytest.mark.parametrize("headless", [False, True])
async def test_command_without_an_api_server_is_ready_with_its_workers(telemetry: Telemetry, headless: bool) -> None:
    known = {"pid": 7, "process": "Worker", "step": "d" * 16, "time_ns": 2, "began_ns": 1}
    warm = StepNotice.model_validate({"event": "ended", "name": "warm_up", **known})
    observer = VLLMCommandObserver(["vllm", "serve", "m", *(["--headless"] if headless else [])])
    async with Bus("b") as bus, observer.relayed_steps(bus, telemetry.relay) as steps:
        list(steps.events_of(warm))
        assert steps.ready is headless
