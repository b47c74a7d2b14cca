from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.bus import StepFailed
from phasebus.telemetry.redaction import MASK, reason, redact, redact_value

SECRETS = [
    "https://user:hunter2secret@host/path",
    "https://bucket.s3.amazonaws.com/model?X-Amz-Signature=hunter2secret&X-Amz-Expires=60",
    "Authorization: Bearer hunter2secret",
    "HF_TOKEN=hunter2secret",
    '{"aws_secret_access_key": "hunter2secret"}',
    "token: hunter2secret, and more",
    "https://host/blob?sig=hunter2secret",
    "api_tokens=hunter2secret",
    "api-tokens=12hunter2secret",
    "bot_tokens=123456:hunter2secret",
    "api_tokens: '9+hunter2secret'",
    "tokens=1%2Fhunter2secret",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_masked_wherever_it_stands(text: str) -> None:
    assert "hunter2secret" not in redact(text)
    assert MASK in redact(text)


@pytest.mark.parametrize(
    "token",
    ["hf_" + "a1B2" * 8, "AKIA" + "ABCD" * 4, "ghp_" + "x" * 36, "sk-" + "a" * 40, "eyJhbGciOiJ9.eyJzdWIiOiJ9.c2ln"],
)
def test_a_token_known_by_its_form_is_masked_without_a_name(token: str) -> None:
    assert token not in redact(f"the server said {token} is not allowed")


@pytest.mark.parametrize(
    "text",
    [
        "download model",
        "/models/llama-3",
        "https://host/a/b?revision=main",
        "ready in 3.2 s",
        "max_model_len=256",
        "max_num_batched_tokens=2048.",
        '{"prompt_tokens": 5, "tokenizer": "/models/llama-3"}',
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@given(st.text(), st.sampled_from(SECRETS), st.text())
def test_masking_twice_changes_nothing_more(before: str, secret: str, after: str) -> None:
    once = redact(f"{before} {secret} {after}")
    assert redact(once) == once


def test_a_value_is_judged_by_its_name_too() -> None:
    assert redact_value("api_key", "plain") == MASK
    assert redact_value("model", "plain") == "plain"
    assert redact_value("tokens", 5) == 5
    assert redact_value("tokenizer_mode", "auto") == "auto"


@pytest.mark.parametrize(
    ("error", "outcome", "said"),
    [
        (ValueError("HF_TOKEN=hunter2secret is wrong"), "failed", f"HF_TOKEN={MASK} is wrong"),
        (ValueError(), "failed", "ValueError"),
        (KeyboardInterrupt(), "cancelled", "it was cancelled"),
    ],
)
def test_the_reason_of_a_failure_is_said_without_secrets_and_never_empty(
    error: BaseException, outcome: str, said: str
) -> None:
    event = StepFailed(step="a" * 16, kind="phase", name="x", seconds=1.0, outcome=outcome, error=error)  # type: ignore[arg-type]
    assert reason(event) == said
