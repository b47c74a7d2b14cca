from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phasebus.telemetry.otel.findings import Findings
from phasebus.telemetry.otel.settings import SpanBatches, TraceSettings

_NAMES = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_PYTHON_CONTEXT",
    "OTEL_PYTHON_METER_PROVIDER",
)


def settings_of(**environment: str) -> tuple[TraceSettings, Findings]:
    findings = Findings()
    return TraceSettings.from_environment(environment, findings), findings


def test_an_empty_environment_has_no_problems_and_the_defaults() -> None:
    settings, findings = settings_of()
    assert settings == TraceSettings()
    assert findings == Findings()


def test_a_queue_smaller_than_a_batch_shrinks_the_batches_with_one_warning() -> None:
    settings, findings = settings_of(OTEL_BSP_MAX_QUEUE_SIZE="256")
    assert settings.batches == SpanBatches(queue=256, batch=256)
    assert len(findings.problems) == 1
    assert findings.repairs == {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "256"}


@pytest.mark.parametrize("value", ["-1", "many", "1.5", "0x10"])
@pytest.mark.parametrize("name", ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT"])
def test_a_limit_that_is_no_whole_number_is_one_warning_and_the_default(name: str, value: str) -> None:
    settings, findings = settings_of(**{name: value})
    assert set(settings.limits.values()) == {128}
    assert findings.problems == [f"{name} is {value!r}; it is no whole number of at least 0. 128 is used"]
    assert findings.repairs == {name: "128"}


@pytest.mark.parametrize("value", ["99999999999999999999", str(2**31)])
@pytest.mark.parametrize("name", ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT"])
def test_duration_that_no_thread_can_wait_is_one_warning_and_the_default(name: str, value: str) -> None:
    settings, findings = settings_of(**{name: value})
    assert settings.batches == SpanBatches()
    assert len(findings.problems) == 1
    assert list(findings.repairs) == [name]
    limits = settings_of(OTEL_ATTRIBUTE_COUNT_LIMIT=value, OTEL_BSP_MAX_QUEUE_SIZE=value)
    assert limits[0].limits == {"max_attributes": int(value)}
    assert limits[1].problems == []


def test_an_empty_limit_means_no_limit() -> None:
    settings, findings = settings_of(OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="", OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT="")
    assert settings.limits == {"max_span_attributes": -1, "max_span_attribute_length": -1}
    assert not findings.problems


@pytest.mark.parametrize(
    ("value", "exporters"),
    [
        ("none", ()),
        ("None", ()),
        ("console", ("console",)),
        ("OTLP, Console", ("otlp", "console")),
        ("otlp,Own", ("otlp", "Own")),
        ("", ("otlp",)),
    ],
)
def test_the_exporters_are_those_that_the_variable_lists(value: str, exporters: tuple[str, ...]) -> None:
    assert settings_of(OTEL_TRACES_EXPORTER=value)[0].exporters == exporters


@pytest.mark.parametrize("name", ["OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"])
def test_configuration_file_is_one_warning_and_the_variables_are_read(name: str) -> None:
    settings, findings = settings_of(**{name: "/etc/otel.yaml", "OTEL_TRACES_SAMPLER": "always_on"})
    assert settings.sampler == "always_on"
    assert [problem.split()[0] for problem in findings.problems] == [name]
    assert findings.repairs == {}


@pytest.mark.parametrize("value", ["jaeger_remote", "traceidratio,0.1"])
def test_an_unknown_sampler_is_one_warning_and_the_default(value: str) -> None:
    settings, findings = settings_of(OTEL_TRACES_SAMPLER=value)
    assert settings.sampler == "parentbased_always_on"
    assert len(findings.problems) == 1


@pytest.mark.parametrize(
    ("name", "default"),
    [("OTEL_PYTHON_CONTEXT", "contextvars_context"), ("OTEL_PYTHON_METER_PROVIDER", "default_meter_provider")],
)
def test_a_part_that_is_not_installed_is_one_warning_and_the_default(name: str, default: str) -> None:
    problem = f"{name} is 'nope'; no installed package provides it. {default} is used"
    assert settings_of(**{name: "nope"})[1] == Findings([problem], {name: default})
    assert settings_of(**{name: ""})[1] == Findings(repairs={name: default})
    assert settings_of(**{name: default})[1] == Findings()


@pytest.mark.parametrize("value", ["2", "-0.5", "half", "nan"])
def test_a_ratio_outside_of_0_to_1_is_one_warning_and_keeps_all(value: str) -> None:
    settings, findings = settings_of(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG=value)
    assert settings.ratio == 1.0
    assert len(findings.problems) == 1
    assert settings.engine_sampler == "parentbased_traceidratio"
    assert findings.repairs == {"OTEL_TRACES_SAMPLER_ARG": "1.0"}


def test_resource_attributes_are_decoded_and_the_service_name_variable_wins() -> None:
    settings, findings = settings_of(
        OTEL_RESOURCE_ATTRIBUTES="service.name=a,team=a%20b, zone = eu ,broken,empty=", OTEL_SERVICE_NAME="b"
    )
    assert settings.resource == {"service.name": "b", "team": "a b", "zone": "eu"}
    assert findings.problems == ["OTEL_RESOURCE_ATTRIBUTES has 'broken', which is not KEY=VALUE; it is ignored"]


@given(st.dictionaries(st.sampled_from(_NAMES), st.text(max_size=40) | st.integers(-1, 10**6).map(str)))
@example({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2100", "OTEL_BSP_MAX_QUEUE_SIZE": "0"})
@example({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "9" * 30, "OTEL_BSP_MAX_QUEUE_SIZE": "0"})
def test_no_value_of_any_variable_raises(environment: dict[str, str]) -> None:
    settings, findings = settings_of(**environment)
    assert 0 < settings.batches.batch <= settings.batches.queue
    assert settings_of(**{**environment, **findings.repairs})[1].repairs == {}


def test_the_sdk_is_imported_where_it_rejects_a_variable_which_stays_as_it_is() -> None:
    program = (
        "import os; from phasebus.telemetry import Telemetry, RunIdentity, Tracing;"
        "Tracing(RunIdentity.fresh()); Telemetry(port=None).relay.close();"
        "print(os.environ['OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT'])"
    )
    environment = {
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-1",
        "OTEL_BSP_MAX_QUEUE_SIZE": "1",
        "OTEL_PYTHON_CONTEXT": "nope",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "-1\n"
    assert done.stderr.count("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT is '-1'") == 1
    assert done.stderr.count("OTEL_BSP_MAX_QUEUE_SIZE is 1") == 1
    assert done.stderr.count("OTEL_PYTHON_CONTEXT is 'nope'") == 1
    assert "Traceback" not in done.stderr
