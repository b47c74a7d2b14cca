"""`phasebus check` and `phasebus schema`."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic_core import PydanticUndefined

from phasebus.initializer import LLMConfig
from phasebus.initializer.cli import main
from phasebus.initializer.cli.check import examine, models, surroundings
from phasebus.initializer.cli.doctor.findings import Finding
from phasebus.initializer.cli.schema import configuration_schema
from phasebus.initializer.cluster import ClusterConfig, load_cluster_config
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.vllm.arguments import known_arguments
from phasebus.initializer.node.config import ServeConfig
from phasebus.initializer.pipeline.errors import ConfigError
from phasebus.initializer.pipeline.schema import default_of, is_in_files, models_of
from phasebus.initializer.pipeline.settings import folder_of, read_fields, validated
from tests.support.docs import ROOT, blocks


@pytest.fixture(autouse=True)
def own_modules_and_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("RAY_ADDRESS", *surroundings.FILE_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("checked_"):
            del sys.modules[name]


def found(folder: Path, text: str, *assignments: str) -> list[Finding]:
    path = folder / "node.yaml"
    path.write_text(text)
    return list(examine(path, assignments))


@contextmanager
def standard_input(text: str) -> Iterator[None]:
    """Let the descriptor 0 read `text` in the block."""
    before, (reading, writing) = os.dup(0), os.pipe()
    try:
        os.write(writing, text.encode())
        os.close(writing)
        os.dup2(reading, 0)
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(reading)


def problems(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(each.topic, each.name, each.value) for each in findings if each.level == "fix"]


def test_right_configuration_has_nothing_to_fix(tmp_path: Path, model: Path) -> None:
    findings = found(tmp_path, f"model: {model}\nengine: none\n", "service.port=0")
    assert problems(findings) == []
    assert {"configuration", "model", "engine", "service", "folders"} <= {each.topic for each in findings}


def test_configuration_of_standard_input_is_read_beside_the_working_folder(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("checked_stdin.py").write_text("def callback(phase, config, data): pass\n")
    with standard_input(f"model: {model}\nengine: none\ncallbacks: [checked_stdin:callback]\n"):
        findings = list(examine(Path("-"), ("service.port=0",)))
    assert problems(findings) == []
    assert ("fields", "standard input") in [(each.name, each.value) for each in findings]
    assert ("callbacks", "checked_stdin:callback") in [(each.name, each.value) for each in findings]


def test_wrong_field_of_standard_input_is_named() -> None:
    with (
        standard_input("modle: x\n"),
        pytest.raises(ConfigError, match=r"^standard input: (.|\n)*did you mean 'model'"),
    ):
        load_cluster_config(Path("-"))


@pytest.mark.parametrize("path", ["-", "node.yaml", "/dev/stdin", "/dev/fd/63", "/proc/self/fd/0"])
def test_callbacks_of_what_is_no_file_of_a_user_are_imported_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder_of(Path(path)) == tmp_path


@pytest.mark.parametrize(
    ("text", "topic", "name", "value"),
    [
        ("model: x/y\nservce: {}\n", "configuration", "servce", "did you mean 'service'?"),
        ("model: x/y\nnodes: two\n", "configuration", "nodes", "valid integer"),
        ("model: ${NOWHERE_SET}\n", "configuration", "file", "line 1: the variable NOWHERE_SET is not set"),
        ("model: /no/model\n", "model", "/no/model", "there is no model at"),
        ("model: ftp://x/y\n", "model", "ftp://x/y", "no source is installed for ftp://"),
        ("model: x/y\nextra_files: [[ftp://a, b]]\n", "model", "extra_files.0", "no source is installed"),
        ("model: x/y\ncallbacks: ['checked_nowhere:f']\n", "callbacks", "callbacks", "there is no module"),
        (
            "models: [{model: x/y, engine: none, callbacks: ['checked_no:f']}]\n",
            "callbacks",
            "models.0.callbacks",
            "no module",
        ),
        ("model: x/y\ndownload_destination: /dev/null/x\n", "downloads", "download_destination", "cannot be written"),
        ("model: x/y\nray: {address: '127.0.0.1:1'}\n", "ray", "address", "cannot connect to 127.0.0.1:1"),
        ("model: x/y\nray: {address: 'http://head:8265'}\n", "ray", "address", "the address of a dashboard"),
        ("model: x/y\nray: {address: head}\n", "ray", "address", "it names no host and port"),
    ],
)
def test_problem_is_found_without_a_start(tmp_path: Path, text: str, topic: str, name: str, value: str) -> None:
    lines = text if "models:" in text else f"{text}engine: none\n"
    [problem] = problems(found(tmp_path, lines))
    assert problem[:2] == (topic, name)
    assert value in problem[2]


@pytest.mark.parametrize(
    ("text", "name", "parts"),
    [
        ("port: 8001", "port", ["service.port or serve.port"]),
        ("timeout_seconds: 5", "timeout_seconds", ["placement.timeout_seconds"]),
        ("models: [{model: x/y}]", "model", ["did you mean models.N.model"]),
        ("engine_kwargs: {}", "engine_kwargs", ["did you mean 'engine_args'"]),
        ("engine_args: [--max-model-len, '4096']", "engine_args", ["valid dictionary", "--max-model-len"]),
        ("callbacks: my_callbacks:f", "callbacks", ["valid list", "my_callbacks:f"]),
        ("callbacks: [my_callbacks.f]", "callbacks", ["my_callbacks.f", "module:name"]),
        ("engine_env: {OMP_NUM_THREADS: 4}", "engine_env.OMP_NUM_THREADS", ["valid string", "it is 4"]),
        ("runtime_env: {env_vars: {A: 0}}", "runtime_env.env_vars.A", ["it is 0", "quotes"]),
        ("service: {port: 70000}", "service.port", ["65535", "it is 70000"]),
        ("placement: {strategy: pack}", "placement.strategy", ["'PACK'", "it is 'pack'"]),
        ("nodes: 3\nreplicas: 2", "fields", ["2 replicas cannot be spread evenly over 3 nodes"]),
        ("name: ${NO_SUCH_NAME}", "file", ["line 3", "NO_SUCH_NAME is not set", "${NO_SUCH_NAME:-default}"]),
        ("engine: vllm", "file", ["'engine' is given twice"]),
        ("engine_env:\n\tA: b", "file", ["line 4, column 1", "indent with spaces"]),
        ("name: 'a", "file", ["line 4", "while scanning a quoted scalar, from line 3 on"]),
        ("service: 9464", "service", ["fields of its own: host, port", "it is 9464"]),
        ("serve: false", "serve", ["fields of its own: host, port", "or null"]),
        ("extra_files: ['s3://a/b']", "extra_files.0", ["fields of its own: source, destination"]),
        ("apiVersion: v1\nkind: ConfigMap", "file", ["Kubernetes (kind: ConfigMap)", "ConfigMap has"]),
        ("applications: []", "file", ["Ray Serve (applications)", "callback_config"]),
    ],
)
def test_common_mistake_names_the_key_and_what_to_write(
    tmp_path: Path, model: Path, text: str, name: str, parts: list[str]
) -> None:
    findings = [
        each
        for each in found(tmp_path, f"model: {model}\nengine: none\n{text}\n")
        if each.level == "fix" and each.name == name
    ]
    shown = " ".join(f"{each.value} {each.advice}" for each in findings)
    assert [part for part in parts if part not in shown] == [], shown


def test_field_of_a_model_that_belongs_to_the_whole_file_is_noted(tmp_path: Path, model: Path) -> None:
    text = f"models:\n- {{model: {model}, engine: none, service: {{port: 1}}, driver_callbacks: []}}\n"
    noted = {each.name: each.advice for each in found(tmp_path, text) if each.level == "note"}
    assert "`service` beside `models`" in noted["models.0.service"]
    assert "`callbacks` beside `models`" in noted["models.0.driver_callbacks"]


@pytest.mark.parametrize(
    ("text", "topic", "parts"),
    [
        ("model:x/y", "configuration", ["has no fields", "model: /path/to/a/model"]),
        ("model: hf:a/b", "model", ["neither a path nor an address", "hf://a/b"]),
        ("model: https://huggingface.co/a/b/tree/main", "model", ["a page of the hub", "hf://a/b"]),
    ],
)
def test_mistaken_model_is_found(tmp_path: Path, text: str, topic: str, parts: list[str]) -> None:
    (finding,) = (each for each in found(tmp_path, f"{text}\n") if each.level == "fix" and each.topic == topic)
    assert [part for part in parts if part not in f"{finding.value} {finding.advice}"] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "max_model_len: 4096",
            "max_model_len there is no such field it is an argument of the engine: write it as engine_args",
        ),
        (
            "engine_args: {max-model-len: 4}",
            "vllm vLLM has no engine argument 'max-model-len'; did you mean 'max_model_len'?",
        ),
        (
            "engine_args: {port: 8001}",
            "vllm vLLM has no engine argument 'port'; it is an argument of vLLM's server: set serve.port",
        ),
        ("engine_args: {api_key: k}", "'api_key'; it is an argument of vLLM's server: set serve.args.api_key"),
        ("engine_args: {tensor_parallel_size: two}", "tensor_parallel_size is 'two', which is no number"),
    ],
)
def test_argument_of_the_engine_in_the_wrong_place_is_found(tmp_path: Path, model: Path, text: str, shown: str) -> None:
    if not known_arguments():
        pytest.skip("vLLM is not installed")
    findings = [each for each in found(tmp_path, f"model: {model}\n{text}\n") if each.level == "fix"]
    assert any(shown in f"{each.name} {each.value} {each.advice}" for each in findings), findings


def test_every_wrong_field_and_callback_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "checked_there.py").write_text("def f(phase, config, data): pass\n")
    text = "modl: x\nnodes: 0\ncallbacks: ['checked_there:f', 'checked_there:g', 'checked_gone:h']\n"
    findings = found(tmp_path, text)
    assert [name for _, name, _ in problems(findings)] == ["model", "nodes", "modl", "callbacks", "callbacks"]
    assert Finding("callbacks", "callbacks", "checked_there:f") in findings
    assert str(tmp_path) not in sys.path


class Launcher:
    def __init__(self, workers: int) -> None:
        self._workers = workers

    def check(self, args: dict[str, Any]) -> None: ...

    def workers(self, args: dict[str, Any]) -> int:
        return self._workers

    def parse(self, model: str, args: dict[str, Any], env: dict[str, str], server: dict[str, Any] | None) -> None:
        if args or server:
            raise EngineError(f"rejected {args} and {server} of {Path(model).name}")


@pytest.mark.parametrize(
    ("workers", "fields", "wrong"),
    [
        (0, {}, False),
        (2, {"ray": {"num_cpus": 2}}, False),
        (3, {"ray": {"num_cpus": 2}}, True),
        (3, {"ray": {"address": "auto", "num_cpus": 2}}, False),
        (1, {"ray": {"num_cpus": 4}, "placement": {"bundles": [{"CPU": 2}, {"CPU": 3}]}}, True),
        (1, {"ray": {"num_cpus": 4}, "placement": {"bundles": []}}, False),
        (1, {"placement": {"bundles": [{"rack:a": 1}]}}, True),
    ],
)
def test_bundles_that_no_local_cluster_can_have_are_found(
    monkeypatch: pytest.MonkeyPatch, model: Path, workers: int, fields: dict[str, Any], wrong: bool
) -> None:
    monkeypatch.setattr(models, "find_launcher", lambda name: Launcher(workers))
    findings = list(models.examine(LLMConfig(model=str(model), **fields)))
    assert ("placement" in {topic for topic, *_ in problems(findings)}) == wrong


@pytest.mark.parametrize(
    ("source", "args", "level", "value"),
    [
        ("here", {"x": 1}, "fix", "rejected {'x': 1} and {} of tiny"),
        ("here", {}, "ok", "the engine accepts them"),
        ("s3://bucket/x", {"x": 1}, "note", "not checked: they depend on the model"),
    ],
)
def test_engine_checks_its_arguments_itself_on_request(
    monkeypatch: pytest.MonkeyPatch, model: Path, source: str, args: dict[str, Any], level: str, value: str
) -> None:
    monkeypatch.setattr(models, "find_launcher", lambda name: Launcher(0))
    config = LLMConfig(model=str(model) if source == "here" else source, engine_args=args)
    [finding] = [each for each in models.examine(config, parse=True) if each.name == "values"]
    assert finding.level == level
    assert value in finding.value


def test_taken_port_and_missing_token_are_possible_surprises(model: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        service = {"host": "0.0.0.0", "port": server.getsockname()[1]}
        findings = list(surroundings.examine(LLMConfig.model_validate({"model": str(model), "service": service}), {}))
    assert [(each.name, each.level) for each in findings if each.topic == "service"] == [
        ("port", "note"),
        ("token", "note"),
    ]


def test_variables_of_the_service_come_before_its_fields(model: Path) -> None:
    config = LLMConfig.model_validate({"model": str(model), "service": {"port": 1}})
    found = list(surroundings.examine(config, {"PHASEBUS_HOST": "0.0.0.0", "PHASEBUS_PORT": "0"}))
    shown = {each.name: each.value for each in found if each.topic == "service"}
    assert shown["port"] == "a free port of 0.0.0.0 is picked"
    assert "token" in shown


@pytest.mark.parametrize(("exact", "level"), [(True, "fix"), (False, "note")])
def test_taken_port_of_the_engine_server_fails_the_start_only_if_configured(
    monkeypatch: pytest.MonkeyPatch, model: Path, exact: bool, level: str
) -> None:
    monkeypatch.setattr(models, "find_launcher", lambda name: Launcher(0))
    with socket.create_server(("127.0.0.1", 0)) as server:
        serve = ServeConfig(port=server.getsockname()[1])
        serve = serve if exact else serve.with_next_free_port()
        findings = list(models.examine(LLMConfig(model=str(model), serve=serve)))
    assert [each.level for each in findings if each.topic == "server"] == [level]


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("0.0.0.0:8000", "serve.host: 0.0.0.0, and serve.port"),
        ("http://0.0.0.0:8000", "serve.host: 0.0.0.0, and serve.port"),
        ("[::]:8000", "serve.host: ::, and serve.port"),
        ("[::]", "serve.host: ::, and serve.port"),
        ("192.0.2.1", "0.0.0.0 or ::"),
    ],
)
def test_address_that_the_engine_server_cannot_have_fails_the_start(
    monkeypatch: pytest.MonkeyPatch, model: Path, host: str, advice: str
) -> None:
    monkeypatch.setattr(models, "find_launcher", lambda name: Launcher(0))
    findings = list(models.examine(LLMConfig(model=str(model), serve=ServeConfig(host=host))))
    [(name, level, shown)] = [(each.name, each.level, each.advice) for each in findings if each.topic == "server"]
    assert (name, level) == ("host", "fix")
    assert advice in shown


def test_address_that_the_service_cannot_have_is_noted_because_the_start_goes_on(model: Path) -> None:
    config = LLMConfig.model_validate({"model": str(model), "service": {"host": "0.0.0.0:9464"}})
    [finding] = [each for each in surroundings.examine(config, {}) if (each.topic, each.name) == ("service", "host")]
    assert finding.level == "note"
    assert "service.host: 0.0.0.0, and service.port" in finding.advice


def test_one_port_for_both_servers_is_found(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(models, "find_launcher", lambda name: Launcher(0))
    ports = {"serve": {"port": 9464}, "service": {"port": 9464}}
    findings = list(models.examine(LLMConfig.model_validate({"model": str(model), **ports})))
    assert ("server", "port", "9464 is also service.port") in problems(findings)


def test_files_with_credentials_must_be_readable_and_not_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "key").write_text("k")
    (tmp_path / "home" / "token").mkdir(parents=True)
    environment = {
        "HF_HOME": str(tmp_path / "home"),
        "AWS_CONFIG_FILE": str(tmp_path / "key"),
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "empty"),
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "missing"),
    }
    findings = list(surroundings.find_files(environment))
    assert {each.name for each in findings if each.level == "fix"} == {
        "the hub's token",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
    }
    assert {each.name for each in findings if each.level == "ok"} == {"AWS_CONFIG_FILE"}


@pytest.mark.parametrize(("text", "code"), [("engine: none\nservice: {port: 0}\n", 0), ("engine: nne\n", 1)])
def test_exit_code_and_json_say_whether_something_is_to_fix(tmp_path: Path, model: Path, text: str, code: int) -> None:
    (tmp_path / "node.yaml").write_text(f"model: {model}\n{text}")
    plain = CliRunner().invoke(main, ["check", str(tmp_path / "node.yaml")])
    data = CliRunner().invoke(main, ["check", str(tmp_path / "node.yaml"), "--json"])
    assert (plain.exit_code, data.exit_code) == (code, code)
    assert plain.output.splitlines()[-1].startswith("nothing to fix" if code == 0 else "to fix: 1")
    assert json.loads(data.output)["to_fix"] == code


def test_secret_of_a_configuration_is_not_shown(tmp_path: Path, model: Path) -> None:
    text = f"model: {model}\nengine: none\nservice: {{token: zebra-cross-0042, port: zebra-cross-0042}}\n"
    (tmp_path / "node.yaml").write_text(text)
    output = CliRunner().invoke(main, ["check", str(tmp_path / "node.yaml")]).output
    assert "service.port" in output
    assert "zebra" not in output


@pytest.mark.parametrize(
    ("token", "mode", "noted"),
    [
        ("zebra-cross-0042", 0o644, True),
        ("zebra-cross-0042", 0o600, False),
        ("${NODE_TOKEN}", 0o644, False),
        ("none", 0o644, False),
    ],
)
def test_secret_in_a_file_that_others_may_read_is_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, token: str, mode: int, noted: bool
) -> None:
    monkeypatch.setenv("NODE_TOKEN", "zebra-cross-0042")
    path = tmp_path / "node.yaml"
    path.write_text(f"model: {model}\nengine: none\nservice: {{token: '{token}'}}\n")
    path.chmod(mode)
    found = [each.level for each in examine(path) if each.name == "service.token"]
    assert found == (["note"] if noted else [])


def validator() -> Any:
    return import_module("jsonschema").Draft7Validator(configuration_schema())


def test_schema_is_one_and_is_printed_by_the_command() -> None:
    schema = json.loads(CliRunner().invoke(main, ["schema"]).output)
    import_module("jsonschema").Draft7Validator.check_schema(schema)
    assert schema == configuration_schema()


CONFIGURATIONS = [
    "model: x\n",
    "models: [{model: x}, {model: y, nodes: 2}]\nname: c\n",
    "model: x\nservice: {port: '${PORT}', host: 0.0.0.0}\nnodes: ${NODES:-1}\n",
    "model: x\nservice: {port: null}\n",
    "model: x\ncallbacks: ['a:b']\n",
    "model: x\nextra_files: [[a, b], {source: a, destination: b}]\n",
    "model: x\nplacement: {bundles: [{CPU: '${CPUS:-1}'}], strategy: SPREAD}\n",
    "model: x\nengine_args: {anything: [1, {a: b}]}\nruntime_env: {env_vars: {A: b}}\n",
    "model: x\nlocal_node_download_model: '${MODE:-NONE}'\n",
]
WRONG = [
    "modl: x\n",
    "model: x\nmodels: [{model: y}]\n",
    "models: []\n",
    "model: x\nservice: {prot: 1}\n",
    "model: x\nservice: {port: 70000}\n",
    "model: x\nnodes: two\n",
    "model: x\nplacement: {strategy: TIGHT}\n",
    "model: x\nplacement: {bundles: [{CPU: -1}]}\n",
    "model: x\ncallbacks: [no_colon]\n",
    "model: x\nextra_files: [[a]]\n",
    "model: x\nengine_env: {A: 1}\n",
]


@pytest.mark.parametrize("text", [*CONFIGURATIONS, *WRONG])
def test_schema_accepts_exactly_what_is_loaded(tmp_path: Path, text: str) -> None:
    import yaml

    assert validator().is_valid(yaml.safe_load(text)) == (text in CONFIGURATIONS)
    path = tmp_path / "node.yaml"
    path.write_text(text.replace("'a:b'", ""))
    fields = read_fields(path, (), {"PORT": "1"})
    if text in CONFIGURATIONS:
        validated(path, fields, ClusterConfig if "models" in fields else LLMConfig)
    else:
        with pytest.raises(Exception, match=r"node\.yaml|module:name"):
            validated(path, fields, ClusterConfig if "models" in fields else LLMConfig)


@pytest.mark.parametrize("page", ["README.md", "deploy/demo.yaml"])
def test_configurations_of_the_project_match_the_schema(page: str) -> None:
    import yaml

    texts = [(ROOT / page).read_text()] if page.endswith(".yaml") else blocks(page, "yaml")
    checked = [data for text in texts if isinstance(data := yaml.safe_load(text), dict) and "model" in data]
    assert checked
    assert [list(validator().iter_errors(data)) for data in checked] == [[] for _ in checked]


def test_every_field_has_its_meaning_and_its_default_in_the_schema() -> None:
    definitions = configuration_schema()["$defs"]
    for model in {*models_of(LLMConfig), *models_of(ClusterConfig)}:
        definition = definitions[model.__name__]
        properties = next(
            form["properties"] for form in (definition, *definition.get("anyOf", ())) if "properties" in form
        )
        assert set(properties) == {name for name in model.model_fields if is_in_files(model, name)}
        for name, schema in properties.items():
            assert schema["description"], name
            default = default_of(model, name)
            assert schema.get("default", PydanticUndefined) == default, name
            assert (
                default is not PydanticUndefined
                or "$ref" in json.dumps(schema)
                or model.model_fields[name].is_required()
            ), name
