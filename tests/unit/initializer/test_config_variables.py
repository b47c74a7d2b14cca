"""Environment variables in a configuration, and fields that the command line sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer import ConfigError, LLMConfig
from phasebus.initializer.cluster.config import load_cluster_config
from phasebus.initializer.node.config import load_config
from phasebus.initializer.pipeline.references import Expanded, expand
from phasebus.initializer.pipeline.settings import read_fields, validated
from phasebus.telemetry.redaction import MASK, redact

VARIABLES = {
    "MODEL": "org/model",
    "LENGTH": "4096",
    "PORT": "9999",
    "EMPTY": "",
    "FRACTION": "9e-1",
    "FALSE": "false",
    "STRUCTURE": "{a: 1}",
    "NODE_TOKEN": "zebra-cross-0042",
    "DIGITS": "0123456789",
    "LONG": "x" * 10_000,
}


def loaded(folder: Path, text: str, *assignments: str) -> LLMConfig:
    path = folder / "node.yaml"
    path.write_text(text)
    return validated(path, read_fields(path, assignments, VARIABLES), LLMConfig)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${LENGTH}", 4096),
        ('"${LENGTH}"', 4096),
        ("!!str ${LENGTH}", "4096"),
        ("${MISSING:-8}", 8),
        ("${EMPTY:-8}", 8),
        ("${MISSING:-}", None),
        ('"${EMPTY}"', ""),
        ("${FRACTION}", 0.9),
        ("${FALSE}", False),
        ("${STRUCTURE}", "{a: 1}"),
        ("a-${LENGTH}-b", "a-4096-b"),
        ("$LENGTH", "$LENGTH"),
        ("$${LENGTH}", "${LENGTH}"),
        ("a$$b$c", "a$b$c"),
        ("'${MISSING:-/data/x y}'", "/data/x y"),
        ("[1, '${LENGTH}']", [1, 4096]),
        ("{b: '${LENGTH}'}", {"b": 4096}),
        ("{$LENGTH: 1}", {"$LENGTH": 1}),
    ],
)
def test_reference_in_an_engine_argument_becomes_the_value_that_yaml_reads(
    tmp_path: Path, text: str, value: object
) -> None:
    config = loaded(tmp_path, f"model: m\nengine_args:\n  a: {text}\n")
    assert config.engine_args["a"] == value
    assert type(config.engine_args["a"]) is type(value)


def test_reference_in_a_field_becomes_a_value_of_its_type(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "model: hf://${MODEL}\n"
        "engine_preload: ${FALSE}\n"
        "engine_env: {OMP_NUM_THREADS: '${LENGTH}'}\n"
        "placement: {bundles: [{CPU: '${LENGTH}'}]}\n"
        "download_destination: /models/${MODEL}\n"
        "name: ${EMPTY}\n"
        "service: {port: '${PORT}', token: '${DIGITS}'}\n",
    )
    assert (config.model, config.engine_preload, config.name) == ("hf://org/model", False, None)
    assert config.engine_env == {"OMP_NUM_THREADS": "4096"}
    assert config.placement.bundles == [{"CPU": 4096.0}]
    assert (config.download_destination, config.service.port) == (Path("/models/org/model"), 9999)
    assert config.service.token is not None
    assert config.service.token.get_secret_value() == "0123456789"
    assert type(config.model) is str


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: ${MODLE}\n", r"node\.yaml, line 1: the variable MODLE is not set; .*default: \$\{MODLE:-default\}"),
        ("model: m\nengine_args:\n  x: ['${A B}']\n", r"line 3: '\$\{A B\}' is no reference to a variable; write"),
        ("model: ${\n", r"line 1: '\$\{' is no reference"),
        ("model: ${A:-${B}}\n", "is no reference"),
        ("model: m\nengine_args: {x: ${LENGTH}}\n", r"inside \{ \} and \[ \], quote a reference to a variable"),
        (
            f"model: m\nname: {'${LONG}' * 101}\n",
            "line 2: the values of the variables .* more than 1,000,000 characters",
        ),
        ("model: m\nengine_args: {x: [" + "'${LONG}', " * 101 + "]}\n", "more than 1,000,000 characters"),
        ("model: m\nnodes: ${MODEL}\n", r"nodes: .*valid integer.* \(it is 'org/model'\)"),
    ],
)
def test_wrong_reference_is_an_error_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, text)


def test_comment_with_a_reference_is_ignored(tmp_path: Path) -> None:
    assert loaded(tmp_path, "# ${MISSING}\nmodel: m # ${MISSING}\n").model == "m"


@given(st.text())
def test_text_with_every_dollar_doubled_is_that_text(text: str) -> None:
    assert expand(text.replace("$", "$$"), {}) == text


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="$")), st.text(alphabet="ab: {}[]'\"#"))
def test_value_of_a_variable_appears_unchanged_between_its_neighbours(value: str, before: str, after: str) -> None:
    assert expand(f"{before}${{A}}{after}", {"A": value}) == f"{before}{value}{after}"


def test_value_of_a_variable_refers_to_no_other_variable() -> None:
    assert expand("${A}", {"A": "${B}", "B": "b"}) == "${B}"


def test_text_without_references_stays_plain_text() -> None:
    assert not isinstance(expand("$${A}", {}), Expanded)


def test_aliased_text_is_expanded_once(tmp_path: Path) -> None:
    config = loaded(tmp_path, "model: m\nengine_args:\n  a: &x $${LENGTH}\n  b: *x\n")
    assert config.engine_args == {"a": "${LENGTH}", "b": "${LENGTH}"}


@pytest.mark.parametrize(
    "text",
    [
        "model: s3://${NODE_TOKEN}@bucket\n",
        "model: m\nservice: {token: '${SECRET}'}\n",
        "model: m\nengine_env: {HF_TOKEN: '${SECRET}'}\n",
    ],
)
def test_secret_from_a_variable_is_masked_later(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    variables = {**VARIABLES, "SECRET": VARIABLES["NODE_TOKEN"]}
    assert VARIABLES["NODE_TOKEN"] in redact(VARIABLES["NODE_TOKEN"])
    validated(path, read_fields(path, (), variables), LLMConfig)
    assert redact(f"seen: {VARIABLES['NODE_TOKEN']}") == f"seen: {MASK}"


def test_environment_of_the_process_is_read_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_TEST_MODEL", "from/here")
    path = tmp_path / "node.yaml"
    path.write_text("model: ${PHASEBUS_TEST_MODEL}\n")
    assert load_config(path).model == "from/here"


@pytest.mark.parametrize(
    ("assignments", "field", "value"),
    [
        (["engine_args.max_model_len=4096"], "engine_args", {"max_model_len": 4096, "kept": 1}),
        (["engine_args.a=1", "engine_args.a=2"], "engine_args", {"a": 2, "kept": 1}),
        (["engine_args.hf_overrides={a: [1, x]}"], "engine_args", {"hf_overrides": {"a": [1, "x"]}, "kept": 1}),
        (["engine_args={}"], "engine_args", {}),
        (["engine_args.x='4'"], "engine_args", {"x": "4", "kept": 1}),
        (["engine_args.x=a=b"], "engine_args", {"x": "a=b", "kept": 1}),
        (["engine_args.x=${LENGTH}"], "engine_args", {"x": "${LENGTH}", "kept": 1}),
        (["runtime_env.env_vars.A=b"], "runtime_env", {"env_vars": {"A": "b"}}),
        (["model=other"], "model", "other"),
        (["name="], "name", None),
    ],
)
def test_assignment_replaces_the_field_of_the_file(
    tmp_path: Path, assignments: list[str], field: str, value: Any
) -> None:
    config = loaded(tmp_path, "model: m\nname: n\nengine_args: {kept: 1}\n", *assignments)
    assert getattr(config, field) == value


def test_assignment_reaches_a_section_that_the_file_lacks(tmp_path: Path) -> None:
    assert loaded(tmp_path, "model: m\n", "service.port=null").service.port is None


def test_assignment_reaches_one_model_of_a_cluster(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("models: [{model: a}, {model: b}]\n")
    config = load_cluster_config(path, ["models.1.engine_args.x=1"])
    assert [model.engine_args for model in config.models] == [{}, {"x": 1}]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("engine_arg.x=1", "engine_arg: there is no such field; did you mean 'engine_args'?"),
        ("service.prot=1", r"service.prot: there is no such field; did you mean 'port'\?"),
        ("service.port=high", "service.port: .*integer"),
        ("engine_args", "--set engine_args is not of the form NAME=VALUE"),
        ("engine_args.=1", "is not of the form"),
        ("=1", "is not of the form"),
        ("model.x=1", "--set model.x: model has no fields"),
        ("extra_files.3=x", r"--set extra_files.3: extra_files.3 does not exist; the list has the indices 0 to 0"),
        ("engine_args.x=[1", "--set engine_args.x: the value cannot be read as YAML"),
        (f"engine_args{'.x' * 50}=1", "it is nested deeper than 50 levels"),
        ("model.x.y=1", "--set model.x.y: there are no fields in model"),
    ],
)
def test_wrong_assignment_is_an_error(tmp_path: Path, assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, "model: m\nextra_files: [[a, b]]\n", assignment)
