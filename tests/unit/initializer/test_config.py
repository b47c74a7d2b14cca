from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from phasebus.bus import CallbackSignatureError, Context, InvalidValueError
from phasebus.initializer import ConfigError, LLMConfig, load_config
from phasebus.initializer.cluster.config import ClusterConfig
from phasebus.initializer.integrations.datasets import DatasetConfig
from phasebus.initializer.integrations.datasets.events import DATASET_KEYS
from phasebus.initializer.integrations.serving import ServingConfig
from phasebus.initializer.integrations.training import TrainingConfig
from phasebus.initializer.pipeline.callbacks import import_callback, importing_from


def written(folder: Path, text: str) -> Path:
    path = folder / "node.yaml"
    path.write_text(text)
    return path


def test_the_smallest_configuration_is_one_line(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "model: /models/tiny\n"))
    assert (config.model, config.engine, config.service.port) == ("/models/tiny", "vllm", 9464)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: x\nmodel: y\n", "modle: there is no such field; did you mean 'model'?"),
        ("model: x\nplacement:\n  bundels: []\n", "placement.bundels: there is no such field; did you mean 'bundles'?"),
        ("model: x\nzzz: 1\n", r"zzz: there is no such field \(there are model, name"),
        ("model: x\nservice:\n  port: 99999\n", r"service.port: .* \(it is 99999\)"),
        ("engine: vllm\n", "model: Field required"),
        ("model: x\nname: on\n", r"name: Input should be a valid string; write it in quotes \(it is True\)"),
        ("model: x\nengine_args: [--max-model-len, 4096]\n", "engine_args: .*; write each as `name: value`"),
        ("model: x\ncallbacks: a:b\n", "callbacks: .*; write each in a line of its own, after a dash"),
        ("model: x\nengine_env: {A: 1.10}\n", "engine_env.A: .*; write it in quotes"),
        ("model: x\nplacement: {bundles: [{CPU: -1}]}\n", r"placement.bundles.0.CPU: .*greater than or equal to 0"),
        ("model: x\nengine: tgi\n", "engine: .*no engine 'tgi' is installed; there are 'none', 'vllm'"),
        ("a: [1\n", "cannot be read as YAML"),
        ("name: !!timestamp x\n", "a value does not have the form of its tag"),
        ("name: !!bool x\n", "a value does not have the form of its tag"),
        ("just text\n", "has no fields; the smallest configuration is one line"),
        ("", "has no fields; the smallest configuration is one line"),
        ("modle: x\nfoo: y\n", "3 fields are wrong"),
        ("model: x\nnodes: 1e9\n", "nodes: .*less than or equal to 10000"),
        ("model: x\nforkserver: kept\n", "forkserver: .*'owned' or 'keep'"),
        ("model: x\nforkserver: keep\nengine_preload: false\n", "engine_preload: false spawns them"),
        ("model: x\nengine_timeout_seconds: .inf\n", "engine_timeout_seconds: .*finite number"),
        ("model: x\nservice: {host: ''}\n", "service.host: .*at least 1 character"),
        ("model: x\nname: {password: 'a b c'}\n", r"name: .* \(it is \{'password': '\[redacted\]'\}\)"),
        (f"model: x\nnodes: {'y' * 1000}\n", "nodes: .{0,300}$"),
        ("\n".join(f"k{number}: 1" for number in range(1000)), "and 981 more"),
    ],
)
def test_a_wrong_field_is_named_with_the_nearest_known_one(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(written(tmp_path, text))
    assert "node.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml cannot be read: No such file or directory"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.fixture
def callbacks_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "callbacks_of_a_user"
    (tmp_path / f"{name}.py").write_text(
        "def custom_download(phase, config, data): pass\n"
        "class Metrics:\n"
        "    def __call__(self, phase, config, data): pass\n"
    )
    (tmp_path / "broken_of_a_user.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_callbacks_are_imported_by_name_and_classes_are_made(tmp_path: Path, callbacks_module: str) -> None:
    text = f"model: x\ncallbacks: ['{callbacks_module}:custom_download', '{callbacks_module}:Metrics']\n"
    function, instance = load_config(written(tmp_path, text)).callbacks
    assert function.__name__ == "custom_download"
    assert type(instance).__name__ == "Metrics"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("callbacks_of_a_user:custom_downlod", "has no 'custom_downlod'; did you mean 'custom_download'?"),
        ("no_such_module:x", "there is no module 'no_such_module' beside the configuration"),
        ("broken_of_a_user:x", "importing broken_of_a_user failed: ZeroDivisionError"),
        ("without_a_colon", "is not of the form module:name"),
    ],
)
def test_a_callback_that_cannot_be_imported_is_named(
    tmp_path: Path, callbacks_module: str, name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path, f"model: x\ncallbacks: ['{name}']\n"))


LAUGHS = "a0: &a0 [ha, ha]\n" + "\n".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "aliases stand for more than 10,000"),
        ("model: &a [*a]", "an alias refers to what it is a part of"),
        ("engine_args:\n" + "".join(f"  k{number}: 1\n" for number in range(100_000)), "larger than 1,000,000 bytes"),
        ("engine_args:\n" + "".join(f"  k{number}: 1\n" for number in range(20_000)), "more than 10,000 keys"),
        ("model: " + "[\n" * 5000 + "]" * 5000, "nested deeper than 50 levels"),
        (f"model: {'a' * 1_000_001}", "larger than 1,000,000 bytes"),
        (f"model: x\nretries: {'9' * 5000}", "Exceeds the limit"),
        ("model: x\nname: caf\udce9", "cannot be read as YAML"),
    ],
)
def test_a_file_beyond_the_limits_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9e-1", 0.9),
        ("1e6", 1_000_000.0),
        ("-1.5E+2", -150.0),
        (".5e1", 5.0),
        ("'9e-1'", "9e-1"),
        ("1234e56", "1234e56"),
        ("1e999", "1e999"),
        ("1e", "1e"),
    ],
)
def test_a_number_with_an_exponent_is_a_number_and_a_commit_is_none(tmp_path: Path, text: str, value: object) -> None:
    config = load_config(written(tmp_path, f"model: x\nengine_args: {{a: {text}}}\n"))
    assert config.engine_args == {"a": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e+06", 1_000_000), ("-1.048576e+06", -1_048_576), ("1.5e+00", 1.5), ("1e6", 1e6), ("1e+6", 1e6)],
)
def test_whole_number_as_helm_writes_it_is_an_integer(tmp_path: Path, text: str, value: float) -> None:
    config = load_config(written(tmp_path, f"model: x\nengine_args: {{a: {text}}}\n"))
    assert repr(config.engine_args) == repr({"a": value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: x\nservice:\n\u00a0\u00a0port: 0\n", r"line 3: .* has a no-break space \(U\+00A0\)"),
        ("model:\u00a0x\n", r"line 1 has a no-break space \(U\+00A0\), which is no plain one"),
        ("model:\u00a0x\nname: y\n", r"(?s)mapping values are not allowed.*line 1 has a no-break space"),
        ("model: x\u00a0\n", "line 1: .* has a no-break space"),
        ("\u200bmodel: x\n", "line 1: .* has a zero-width space"),
        ("model: \u201cx\u201d\n", r"line 1: .* has a typographic quote \(U\+201C\)"),
        ("model\uff1a x\nname: y\n", "(?s)line 1 has a full-width colon"),
    ],
)
def test_character_that_looks_like_another_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize("text", ["x\u00a0y", "'\u201cx\u201d'", "it\u2019s", "x\u2019", "Gr\u00fc\u00dfe"])
def test_character_that_looks_like_another_is_accepted_within_or_in_quotes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(f"\ufeffmodel: {text}\n", encoding="utf-8")
    assert load_config(path).model == text.strip("'")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import sys\nsys.exit(0)", r"importing module_of_a_user called sys.exit\(0\)"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--x'])", r"called sys.exit\(2\)"),
        ("raise GeneratorExit", "importing module_of_a_user failed: GeneratorExit"),
        ("class f:\n    def __init__(self): raise SystemExit('bye')", r"calling f\(\) called sys.exit\('bye'\)"),
        ("class f:\n    def __init__(self, x): pass", r"calling f\(\) failed: TypeError"),
        (
            "class C:\n    def __getattribute__(self, n): raise RuntimeError('evil')\n    __call__ = print\nf = C()",
            "failed: RuntimeError: evil",
        ),
    ],
)
def test_a_module_that_exits_or_fails_is_an_error_with_the_callback_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    (tmp_path / "module_of_a_user.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "module_of_a_user", raising=False)
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path, "model: x\ncallbacks: ['module_of_a_user:f']\n"))


def test_every_field_is_documented() -> None:
    def undocumented(model: type[BaseModel], path: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if not field.description:
                found.append(f"{path}{name}")
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                found += undocumented(field.annotation, f"{path}{name}.")
        return found

    assert undocumented(LLMConfig, "") == []


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        ("os:sep", "'os:sep' is '/', which cannot be called"),
        ("needs_more:f", "needs_more imports 'not_installed', which is not installed"),
    ],
)
def test_a_name_that_is_no_callback_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callback: str, message: str
) -> None:
    (tmp_path / "needs_more.py").write_text("import not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(message)):
        import_callback(callback)


def test_a_duplicate_field_is_rejected(tmp_path: Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text("model: a\nengine_args: {dtype: half, dtype: float}\n")
    with pytest.raises(ConfigError, match=r"line 2, column \d+: 'dtype' is given twice"):
        load_config(config)


def test_the_trace_url_has_to_be_a_url(tmp_path: Path) -> None:
    text = "model: a\nservice: {trace_url: '%s'}\n"
    config = load_config(written(tmp_path, text % "http://jaeger:16686/trace/{trace}"))
    assert config.service.trace_url == "http://jaeger:16686/trace/{trace}"
    with pytest.raises(ConfigError, match=r"service.trace_url: .*pattern"):
        load_config(written(tmp_path, text % "jaeger:16686"))


@pytest.mark.parametrize("config", [LLMConfig, ServingConfig, DatasetConfig, TrainingConfig, ClusterConfig])
def test_a_value_that_is_no_callback_is_rejected_by_every_configuration(config: type[BaseModel]) -> None:
    with pytest.raises(CallbackSignatureError, match="5 is not callable"):
        config(callbacks=[5])


@pytest.mark.parametrize(
    "fields", [{"resource_limits": {"cpus": 1}}, {"resource_limits": {"cpu": -1}}, {"max_block_bytes": -5}]
)
def test_limits_that_ray_data_rejects_are_rejected_everywhere(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DatasetConfig(**fields)
    with pytest.raises(InvalidValueError):
        Context(keys=DATASET_KEYS).update(fields)


def test_a_trainer_given_by_name_is_rejected() -> None:
    with pytest.raises(ValidationError, match="trainer"):
        TrainingConfig(train_loop=print, trainer="TorchTrainer")  # type: ignore[arg-type]  # that is the mistake


def test_a_token_is_long_or_none(tmp_path: Path) -> None:
    def token_of(token: str) -> str | None:
        return load_config(written(tmp_path, f"model: m\nservice: {{token: {token}}}\n")).service.access.token

    assert token_of("a-long-token") == "a-long-token"
    assert token_of("none") == "none"
    with pytest.raises(ConfigError, match=r"service.token: .*at least 8 characters") as raised:
        token_of("sh0rt")
    assert "sh0rt" not in str(raised.value)


@pytest.mark.parametrize("text", ["model: x\n---\n", "---\nmodel: x\n...\n---\n# the end\n", "---\n---\nmodel: x\n"])
def test_empty_documents_around_a_configuration_are_skipped(tmp_path: Path, text: str) -> None:
    assert load_config(written(tmp_path, text)).model == "x"


def test_second_document_of_a_configuration_is_an_error_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 2, column 1: but found another document"):
        load_config(written(tmp_path, "model: x\n---\nmodel: y\n"))


def test_modules_beside_a_configuration_come_first_only_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("installed", "beside"):
        (tmp_path / folder).mkdir()
        for name in ("of_both_early", "of_both_late"):
            (tmp_path / folder / f"{name}.py").write_text(f"where = {folder!r}\n")
    (tmp_path / "beside" / "of_one.py").write_text("where = 'beside'\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "installed"), *sys.path])
    with importing_from(tmp_path / "beside"):
        found = [import_module("of_both_early").where]
    found += [import_module(name).where for name in ("of_both_late", "of_one")]
    for name in ("of_both_early", "of_both_late", "of_one"):
        monkeypatch.delitem(sys.modules, name)
    assert found == ["beside", "installed", "beside"]


def test_start_goes_on_if_a_callback_has_removed_the_folder_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(before))
    with importing_from(tmp_path):
        sys.path.remove(str(tmp_path))
    assert sys.path == [*before, str(tmp_path)]
