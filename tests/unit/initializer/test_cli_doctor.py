from __future__ import annotations

import json
import os
import pwd
import site
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from phasebus.initializer.cli import doctor as room
from phasebus.initializer.cli import main
from phasebus.initializer.cli.doctor import examine, machine, software, variables
from phasebus.initializer.cli.doctor.findings import Finding, as_lines
from phasebus.initializer.engines.vllm import inspection, versions
from tests.support.programs import free_port


def levels(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.name: finding.level for finding in findings}


SECRETS = {
    "HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz012345",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer sesame-open-now",
    "HTTPS_PROXY": "http://me:p4ssw0rd-of-mine@proxy:3128",
}


EXAMINE = """
import json, sys
from phasebus.initializer.cli.doctor import examine
from phasebus.initializer.cli.doctor.findings import as_json
print(json.dumps([as_json(list(examine())), sorted({"vllm", "ray", "torch"} & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Finding], list[str]]:
    """What there is to report where variables have secrets, and what it has imported, in a process of its own."""
    folder = tmp_path_factory.mktemp("doctor")
    folders = {name: str(folder) for name in ("HOME", "PHASEBUS_STATE_DIR", "PHASEBUS_CACHE_DIR")}
    environment = {"PATH": os.environ["PATH"], **folders, **SECRETS}
    ended = subprocess.run(
        [sys.executable, "-c", EXAMINE], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    findings, imported = json.loads(ended.stdout)
    return [Finding(**each) for each in findings], imported


@pytest.fixture
def found(examined: tuple[list[Finding], list[str]]) -> list[Finding]:
    return examined[0]


def test_report_has_every_topic_once_and_ends_with_what_to_fix(found: list[Finding]) -> None:
    lines = list(as_lines(found))
    topics = [line for line in lines if not line.startswith(" ")]
    assert len(topics) == len(set(topics))
    assert {"versions", "plugin", "ports", "folders", "collector", "machine"} < set(topics)
    assert 20 <= len(lines) <= 45
    assert topics[-1].startswith(("nothing to fix", "to fix: "))


def test_long_name_has_a_line_of_its_own_and_widens_no_other() -> None:
    long = "/models/" + 300 * "x"
    lines = list(as_lines([Finding("a", "port", "free"), Finding("a", long, "it is missing", "fix", "fetch it")]))
    assert lines[1:5] == ["   port  free", f" ! {long}", "         it is missing", "         fetch it"]


def test_doctor_imports_neither_vllm_nor_ray(examined: tuple[list[Finding], list[str]]) -> None:
    assert examined[1] == []


def test_secret_variables_are_masked_in_both_forms(found: list[Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "examine", lambda: found)
    for arguments in ([], ["--json"]):
        output = CliRunner().invoke(main, ["doctor", *arguments]).output
        assert "HF_TOKEN" in output
        assert not any(secret in output for secret in ("hf_abc", "sesame", "p4ssw0rd"))


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("note", 0), ("fix", 1)])
def test_exit_code_is_one_where_there_is_something_to_fix(
    monkeypatch: pytest.MonkeyPatch, level: str, code: int
) -> None:
    monkeypatch.setattr(room, "examine", lambda: [Finding("ports", "/metrics", "9464", level)])  # type: ignore[arg-type]
    ended = CliRunner().invoke(main, ["doctor", "--json"])
    assert ended.exit_code == code
    assert json.loads(ended.output)["to_fix"] == code


def test_check_that_fails_is_a_note_and_the_others_are_reported() -> None:
    def find_moon() -> Iterator[Finding]:
        raise OSError("no such moon")
        yield

    findings = list(examine([find_moon, machine.find_hardware]))
    assert findings[0] == Finding("moon", "check", "failed: OSError: no such moon", "note")
    assert len(findings) == 3


@pytest.mark.parametrize(
    ("allowed", "level"), [(None, "ok"), ("phasebus", "ok"), ("a,phasebus", "ok"), ("lora_filesystem_resolver", "note")]
)
def test_plugin_list_without_phasebus_is_noted(
    monkeypatch: pytest.MonkeyPatch, allowed: str | None, level: str
) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    if allowed is not None:
        monkeypatch.setenv("VLLM_PLUGINS", allowed)
    assert levels(software.find_plugin())["VLLM_PLUGINS"] == level


def test_missing_entry_point_of_the_plugin_is_to_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "entry_points", lambda group: [EntryPoint("other", "other:register", group)])
    assert levels(software.find_plugin()) == {"entry point": "fix"}


@pytest.mark.parametrize(
    ("release", "level"),
    [("0.15.1", "fix"), ("0.16.0", "ok"), ("0.32.0+cpu", "ok"), ("0.99.0", "note"), (None, "note")],
)
def test_version_of_vllm_is_compared_with_the_supported_ones(
    monkeypatch: pytest.MonkeyPatch, release: str | None, level: str
) -> None:
    monkeypatch.setattr(versions, "installed_version", lambda: release)
    assert levels(software.find_versions())["vLLM"] == level


def test_stale_metadata_in_a_source_folder_is_to_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "phasebus.egg-info"
    stale.mkdir()
    (stale / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: phasebus\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert levels(software.find_versions())["metadata"] == "fix"


@pytest.mark.parametrize(
    ("host", "port", "level", "shown"),
    [
        ("", "tcp://10.0.0.7:9464", "", "127.0.0.1:9464"),
        ("", "abc", "fix", "abc is not a port"),
        ("", "70000", "fix", "70000 is not a port"),
        ("0.0.0.0:9464", "", "note", "set PHASEBUS_HOST to 0.0.0.0"),
        ("192.0.2.1", "0", "note", "set PHASEBUS_HOST to an address of this machine"),
    ],
)
def test_address_of_the_service_is_checked_as_it_is_used(
    monkeypatch: pytest.MonkeyPatch, host: str, port: str, level: str, shown: str
) -> None:
    monkeypatch.setenv("PHASEBUS_HOST", host)
    monkeypatch.setenv("PHASEBUS_PORT", port)
    [finding] = machine.find_ports()
    assert finding.level == (level or finding.level)  # the default port may be in use
    assert shown in f"{finding.value} {finding.advice}"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_address_of_ipv6_is_listened_on_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_HOST", "::")
    monkeypatch.setenv("PHASEBUS_PORT", "0")
    [finding] = machine.find_ports()
    assert (finding.level, finding.value) == ("ok", "a free port of :: is picked")


def test_variables_that_kubernetes_sets_for_services_are_named() -> None:
    links = {"PHASEBUS_PORT": "tcp://10.0.0.7:9464", "VLLM_PORT": "tcp://10.0.0.8:8000"}
    assert levels(variables.find_service_links(links)) == {"PHASEBUS_PORT": "note", "VLLM_PORT": "fix"}
    assert levels(variables.find_service_links({"PHASEBUS_PORT": "9464", "VLLM_PORT": "5000"})) == {}


def test_variables_with_quotes_or_white_space_around_their_values_are_named() -> None:
    kept = {"HF_TOKEN": '"hf_secret"', "http_proxy": "'p'", "HF_HOME": "/data\r", "OTHER": '"x"', "HF_ENDPOINT": "a'b"}
    found = list(variables.find_stray_characters(kept))
    assert levels(iter(found)) == {"HF_HOME": "note", "HF_TOKEN": "fix", "http_proxy": "fix"}
    assert "secret" not in str(found)


def test_port_in_use_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("PHASEBUS_PORT", str(taken.getsockname()[1]))
        assert levels(machine.find_ports()) == {"/metrics": "note"}
    monkeypatch.setenv("PHASEBUS_PORT", str(free_port()))
    assert levels(machine.find_ports()) == {"/metrics": "ok"}


def test_folder_that_cannot_be_written_is_to_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(file / "state"))
    assert levels(machine.find_folders())["journals"] == "fix"


def test_collector_that_is_away_is_to_fix_and_one_that_listens_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    assert levels(machine.find_collector()) == {"http/protobuf": "fix"}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert levels(machine.find_collector()) == {"http/protobuf": "ok"}


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({}, "ok"),
        ({"https_proxy": "http://proxy:3128"}, "note"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "localhost, 127.0.0.1"}, "ok"),
        ({"ALL_PROXY": "socks5://proxy:1080", "no_proxy": "*"}, "ok"),
    ],
)
def test_proxy_that_catches_loopback_is_noted(environment: dict[str, str], level: str) -> None:
    assert set(levels(variables.find_proxies(environment)).values()) == {level}


def test_user_without_a_home_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="name"))
    assert levels(variables.find_user({})) == {"user": "note"}
    assert levels(variables.find_user({"HOME": str(tmp_path)})) == {"user": "ok"}


def test_packages_of_the_user_that_hide_those_of_the_environment_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, name, release in (
        ("user", "hub", "1.16"),
        ("image", "hub", "0.36"),
        ("user", "alone", "1"),
        ("image", "same", "2"),
    ):
        metadata = tmp_path / folder / f"{name}-{release}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n")
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(tmp_path / "user"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "user"), str(tmp_path / "image")])
    (found,) = software._of_user()
    assert (found.level, found.value) == ("note", f"{tmp_path / 'user'} has hub 1.16 (not 0.36)")
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    assert list(software._of_user()) == []


def test_user_without_a_name_is_noted_unless_a_variable_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", fail)
    assert levels(variables.find_user({"HOME": str(tmp_path)})) == {"user name": "note", "user": "ok"}
    assert levels(variables.find_user({"HOME": str(tmp_path), "USER": "any"})) == {"user": "ok"}


def test_every_library_below_its_floor_is_to_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = software._version
    monkeypatch.setattr(software, "_version", lambda name: "0.1" if name == "anyio" else installed(name))
    findings = {finding.name: finding for finding in software.find_versions()}
    assert findings["anyio"].level == "fix"
    assert findings["anyio"].advice.startswith("pip install 'anyio>=4")


def test_report_has_no_control_characters_of_a_value_and_no_line_of_it_looks_like_a_finding() -> None:
    lines = list(as_lines([Finding("variables", "A\x1b[2J", "x\x1b]0;t\x07\nnothing to fix", "note", "\u202e")]))
    assert lines == [
        "variables",
        " - A\\x1b[2J  x\\x1b]0;t\\x07\n    nothing to fix",
        f"   {'':<5}  \\u202e",
        "nothing to fix",
    ]
