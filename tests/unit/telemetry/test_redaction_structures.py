from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from phasebus.telemetry.redaction import (
    MASK,
    learn_data,
    learn_environment,
    learn_url,
    redact,
    redact_arguments,
    redact_data,
)

SECRET = "hunter2Secret9"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["vllm", "serve", "m", "--api-key", "A1b2c3", "D4e5f6", "--port", "1"],
         ["vllm", "serve", "m", "--api-key", MASK, MASK, "--port", "1"]),
        (["--api-key=A1b2c3"], [f"--api-key={MASK}"]),
        (["--hf-token", "A1b2c3", "model"], ["--hf-token", MASK, "model"]),
        (["curl", "-H", "Authorization: Token A1b2c3", "-u", "bob:A1b2c3"],
         ["curl", "-H", f"Authorization: {MASK}", "-u", f"bob:{MASK}"]),
        (["--config", '{"api_key": "A1b2c3", "size": 1}'], ["--config", f'{{"api_key": "{MASK}", "size": 1}}']),
        (['--config={"size":1}'], ['--config={"size":1}']),
        (["env", "HF_TOKEN=A1b2c3", "MODE=fast"], ["env", f"HF_TOKEN={MASK}", "MODE=fast"]),
        (["http://bob:A1b2@c3@host/m"], [f"http://{MASK}@host/m"]),
        (["--max-tokens", "5", "--tokenizer", "x"], ["--max-tokens", "5", "--tokenizer", "x"]),
        (["--max-num-batched-tokens", "8192", "--num-speculative-tokens=4"],
         ["--max-num-batched-tokens", "8192", "--num-speculative-tokens=4"]),
        (["--kv-transfer-config.token", "A1b2c3"], ["--kv-transfer-config.token", MASK]),
        (["bad\udcff", ""], ["bad\\udcff", ""]),
    ],
)  # fmt: skip
def test_redact_arguments_masks_secret_values_alone(arguments: list[str], shown: list[str]) -> None:
    assert redact_arguments(arguments) == shown
    assert "A1b2c3" not in redact("the key A1b2c3 was refused") or "A1b2c3" not in " ".join(arguments)


def test_redact_arguments_bounds_each_argument() -> None:
    (shown,) = redact_arguments(["[" * 1_000_000])
    assert len(shown) < 10_000


def test_redact_data_masks_by_name_at_every_depth() -> None:
    data = {"a": [{"password": SECRET, "max_tokens": 5}], "url": f"https://u:{SECRET}@h/", "api_key": [SECRET]}
    assert redact_data(data) == {
        "a": [{"password": MASK, "max_tokens": 5}],
        "url": f"https://{MASK}@h/",
        "api_key": MASK,
    }


@dataclass
class Login:
    token: str


class Options(BaseModel):
    engine_args: dict[str, Any]
    password: SecretStr = SecretStr("")


CYCLE: dict[str, Any] = {}
CYCLE.update(self=CYCLE, password=SECRET)


@pytest.mark.parametrize(
    "value",
    [
        {"hf_token": SECRET},
        {"api_key": [SECRET]},
        {"api_key": SECRET.encode()},
        Login(token=SECRET),
        Options(engine_args={"api_key": SECRET}),
        Options(engine_args={}, password=SecretStr(SECRET)),
        [f"s3://key:{SECRET}@bucket/x"],
        CYCLE,
    ],
)
def test_learn_data_remembers_secrets_of_any_structure(value: Any) -> None:
    learn_data(value)
    assert redact(f"refused {SECRET}!") == f"refused {MASK}!"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", SECRET),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"x-tenant=production,x-auth={SECRET}"),
        ("DATABASE_URL", f"postgres://u:{SECRET}@h/db"),
    ],
)
def test_learn_environment_remembers_secret_variables(name: str, value: str) -> None:
    learn_environment({name: value, "HOME": "/home/somewhere9"})
    assert redact(f"{SECRET} /home/somewhere9 production") == f"{MASK} /home/somewhere9 production"


def test_learn_url_remembers_passwords_and_signatures() -> None:
    learn_url(f"https://bob:{SECRET}@host/x?sig=sIgNaTuRe77&page=2")
    assert redact(f"{SECRET} sIgNaTuRe77 host page") == f"{MASK} {MASK} host page"


def test_learn_environment_leaves_quantities_and_names_of_secrets_in_other_texts() -> None:
    learn_environment(
        {
            "VLLM_MAX_BAD_WORDS_TOTAL_TOKENS": "123456789",
            "VLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD": "234567890",
            "SECRET_NAME": "node-0",
            "CREDENTIALS_SOURCE": "environment",
            "KEY": "model-1",
            "TOKEN_COUNT": "345678901",
            "SSH_KEY_PATH": "/models",
            "API_KEY": "model",
            "HF_TOKEN": "true",
            "SESSION_KEY": "1",
        }
    )
    text = "node-0 loads /models from its environment: model-1, 123456789 of 234567890 of 345678901 bytes, model 1 true"
    assert redact(text) == text


@pytest.mark.parametrize(
    "arguments", [["--api-key", "${\udcff}"], ["-u", "a\x1b\udcff:secret1"], ["--token=\udcff"], ["\udcff"]]
)
def test_arguments_are_printable(arguments: list[str]) -> None:
    for shown in redact_arguments(arguments):
        shown.encode()
        assert shown.isprintable()
