from __future__ import annotations

import json
import shlex
from base64 import b16encode, b64encode, urlsafe_b64encode
from html import escape
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.bus import StepFailed
from phasebus.telemetry.redaction import (
    MASK,
    LineRedactor,
    is_secret_name,
    learn_secret,
    reason,
    redact,
    redact_name,
    redact_value,
)

SECRET = "hunter2Secret9"

LEAKS = [
    "https://user:{}@host/path",
    "http://bob:s3c@{}@host/x",
    "http://bob:pa/{}@host/x",
    "http://bob:pa#{}@host",
    "redis://:{}@h:6379 and http://h2/",
    "http://h1/,http://u:{}@h2",
    "https://bucket.s3.amazonaws.com/model?X-Amz-Signature={}&X-Amz-Expires=60",
    "https://host/blob?sig={}",
    "https://host/m/?code={}",
    "Authorization: Bearer {}",
    "Authorization: Token {}",
    "Authorization: {}",
    "-H 'Authorization: Basic {}'",
    '-H "X-Api-Key: {}"',
    "authorization: AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=h, Signature={}",
    "{{'headers': {{'Authorization': 'Bearer {}'}}}}",
    "Cookie: a=b; sid={}; c=d",
    "Set-Cookie: sid={}; Path=/",
    "Bearer {}",
    "HF_TOKEN={}",
    "export HF_TOKEN='{}'",
    "AZURE_STORAGE_KEY={}",
    "PGPASSWORD={}",
    "MYSQL_PWD={}",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={}==;EndpointSuffix=core",
    "Endpoint=sb://x;SharedAccessKey={}",
    "Server=x;Pwd={};",
    '{{"aws_secret_access_key": "{}"}}',
    "{{'api_key': b'{}'}}",
    "{{'api_key': ['{}']}}",
    "{{'hf_token': {{'value': '{}'}}}}",
    '{{"body": "{{\\"api_key\\": \\"{}\\"}}"}}',
    "Namespace(api_key=['{}'], x=1)",
    "password='it\\'s {}'",
    "api_keys:\n  - {}",
    "token: {}, and more",
    "token => {}",
    "Incorrect API key: {}",
    "vllm serve m --api-key {}",
    "vllm serve m --hf-token={}",
    "api_tokens={}",
    "api_tokens: '9+{}'",
    "tokens=1%2F{}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
]

HARMLESS = """\
download model
/models/llama-3
ready in 3.2 s
https://host/a/b?revision=main&page=2
https://peer.example:9077 refused a write from ai:coder@pop-os
https://peer:9077/api-for-ai:coder@f2
https://host/@scope/package@1.0
http://[::1]:80/a@b
hf://org/model@main
git@github.com:org/repository.git
max_model_len=256
max_num_batched_tokens=2048.
--max-num-batched-tokens 8192 --tokenizer /models/x --tokenizer-mode auto
{"prompt_tokens": 5, "tokenizer": "/models/llama-3"}
prompt_tokens: 5, completion_tokens: 7
tokens/s: 123.4
time_per_output_token: 0.02
eos_token='</s>', eos_token_id=2, num_key_value_heads=8
Unexpected token: '}'
token: expected a string
the token was rejected: token is not valid
api_key=None
api_key is missing; set --api-key or VLLM_API_KEY
password: required
Authorization: required to access the model
basic operations are fine; bearer authentication is required
HF_TOKEN_PATH=/root/.cache/token
SSH_AUTH_SOCK=/tmp/agent.1
TOKENIZERS_PARALLELISM=false
key=value, primary_key=id, cache_key=abc, public_key=abc
PWD=/work
monkey=1 keyboard=us author=bob authority: x secretary: bob compass=3
signature of f(x) = y""".splitlines()


@pytest.mark.parametrize("text", LEAKS)
def test_redact_masks_a_secret_in_free_text(text: str) -> None:
    assert SECRET not in redact(text.format(SECRET))
    assert MASK in redact(text.format(SECRET))


@pytest.mark.parametrize("text", HARMLESS)
def test_redact_keeps_text_without_secrets(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "token",
    ["hf_" + "a1B2" * 8, "AKIA" + "ABCD" * 4, "ghp_" + "x" * 36, "sk-" + "a" * 40, "eyJhbGciOiJ9.eyJzdWIiOiJ9.c2ln"],
)
def test_redact_masks_a_known_token_form_without_a_name(token: str) -> None:
    assert token not in redact(f"the server said {token} is not allowed")


@given(st.text(), st.sampled_from(LEAKS), st.text())
def test_redact_twice_equals_redact_once(before: str, secret: str, after: str) -> None:
    once = redact(f"{before} {secret.format(SECRET)} {after}")
    assert redact(once) == once


@pytest.mark.parametrize("value", ["S3cret/with space", 'quo"te99', "pa55wörd", "p@ss:w0rd"])
def test_redact_masks_a_known_secret_wherever_it_appears(value: str) -> None:
    assert value in redact(f"it is {value}")
    redact_value("db_password", value)
    for text in (value, quote(value, safe=""), json.dumps(value), f"no separator{value}behind"):
        assert MASK in redact(text)


@pytest.mark.parametrize("value", ["Zq9xKs72LmWvT4bNc8Rd", "p@ss/w0rd+\xfc\"x'9"])
@pytest.mark.parametrize("before", ["", "a:", "me:", "user:", '{"auth": "'])
@pytest.mark.parametrize("behind", ["", "\n", '"}'])
def test_known_secret_is_masked_in_base64_and_hexadecimal_digits(value: str, before: str, behind: str) -> None:
    learn_secret(value)
    content = f"{before}{value}{behind}".encode()
    for encode in (b64encode, urlsafe_b64encode, b16encode, lambda each: each.hex().encode()):
        assert redact(f"auth {encode(content).decode()} end") == f"auth {MASK} end"
    harmless = b64encode(b"another text of the same length").decode()
    assert redact(f"auth {harmless} end") == f"auth {harmless} end"


def test_known_secret_is_masked_in_the_notations_of_markup_python_and_a_shell() -> None:
    value = "p@ss/w0rd+\xfc\"x'9"
    learn_secret(value)
    for text in (escape(value), repr(value), repr(value.encode()), shlex.quote(value), json.dumps(json.dumps(value))):
        assert MASK in redact(f"it is {text}")
        assert "w0rd" not in redact(f"it is {text}")


@pytest.mark.parametrize("value", ["abc", "plain", "8080", "EMPTY", "changeme"])
def test_a_secret_that_is_a_common_word_is_masked_under_its_name_alone(value: str) -> None:
    learn_secret(value)
    assert redact_value("api_key", value + "1") == MASK
    assert redact(f"the model {value} is ready") == f"the model {value} is ready"


def test_a_short_known_secret_is_masked_as_a_whole_word() -> None:
    learn_secret("k3y42")
    assert redact("it is k3y42.") == f"it is {MASK}."
    assert redact("ak3y42b") == "ak3y42b"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("api_key", "plain", MASK),
        ("model", "plain", "plain"),
        ("tokens", 5, 5),
        ("db_password", 770077, MASK),
        ("has_token", True, True),
        ("api_key", "", ""),
        ("tokenizer_mode", "auto", "auto"),
        ("loss", float("nan"), "nan"),
        ("size", 2**63 - 1, 2**63 - 1),
        ("size", 2**70, str(2**70)),
        ("size", 1 << 2000, "an integer of 2001 bits"),
        ("data", b"\xffa", "\\xffa"),
        ("file", "r\udce9sum", "r\\udce9sum"),
        ("title", "\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("list", ["a", 1], "['a', 1]"),
    ],
)
def test_redact_value_returns_a_printable_attribute(name: str, value: object, shown: object) -> None:
    assert redact_value(name, value) == shown


def test_redact_value_accepts_cyclic_deep_and_broken_values() -> None:
    cyclic: list[object] = []
    cyclic.append(cyclic)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("broken")

    assert redact_value("x", cyclic) == "[[...]]"
    assert redact_value("x", deep) == "<list>"
    assert redact_value("x", Broken()) == "<Broken>"


def test_redact_bounds_text_without_keeping_part_of_a_secret() -> None:
    text = redact("x " * 32_700 + f"hf_{'aB3' * 200} " + "y" * 2_000_000)
    assert len(text) <= 65_536
    assert "hf_" not in text
    assert "more characters" in text


def test_redact_name_returns_one_short_line() -> None:
    assert redact_name("a\nb\x07") == "a\\nb\\x07"
    assert len(redact_name("n" * 1_000_000)) <= 500


@pytest.mark.parametrize("name", ["HF_TOKEN", "--api-key", "AccountKey", "X-Auth-Token", "client-secret", "apiKeys"])
def test_is_secret_name_accepts_every_spelling(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["", "max_tokens", "tokenizer", "token_ids", "sort_key", "keys", "HF_TOKEN_PATH"])
def test_is_secret_name_rejects_similar_names(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("error", "outcome", "shown"),
    [
        (ValueError(f"HF_TOKEN={SECRET} is wrong"), "failed", f"HF_TOKEN={MASK} is wrong"),
        (ValueError(), "failed", "ValueError"),
        (KeyboardInterrupt(), "cancelled", "it was cancelled"),
    ],
)
def test_reason_returns_a_redacted_message_that_is_never_empty(error: BaseException, outcome: str, shown: str) -> None:
    event = StepFailed(step="a" * 16, kind="phase", name="x", seconds=1.0, outcome=outcome, error=error)  # type: ignore[arg-type]
    assert reason(event) == shown


def test_reason_accepts_an_error_that_has_no_text() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    event = StepFailed(step="a" * 16, kind="phase", name="x", seconds=1.0, outcome="failed", error=Mute())
    assert reason(event) == "Mute"


SECRET = "Zq9xKs72LmWvTr41"
SECRET_KEY = "RSA PRIVATE KEY"
PREFIXES = (
    "ya29.a0", "sk_live_", "hvs.", "dckr_pat_", "xai-", "glrt-", "xapp-1-", "secret_", "ntn_", "lin_api_",
    "figd_", "glsa_", "shpat_", "sntrys_", "wandb_v1_", "pcsk_", "tgp_v1_", "csk-", "tvly-", "pscale_tkn_", "dp.pt.",
)  # fmt: skip
OTHER_NOTATIONS = [
    f"<Credentials><SecretAccessKey>{SECRET}</SecretAccessKey></Credentials>",
    f'<wsse:Password Type="x">{SECRET}</wsse:Password>',
    f'<add key="ApiKey" value="{SECRET}"/>',
    f"env:\n- name: HF_TOKEN\n  value: {SECRET}",
    f'{{"name": "HF_TOKEN", "value": "{SECRET}"}}',
    f"V1EnvVar(name='HF_TOKEN', value='{SECRET}', value_from=None)",
    f"Headers([('authorization', 'Bearer {SECRET}')])",
    f"[(b'x-api-key', b'{SECRET}')]",
    f"args=['vllm', 'serve', '--api-key', '{SECRET}', '--port', '1']",
    f"args: [--api-key, {SECRET}]",
    f"- --api-key\n- {SECRET}",
    f"SecretStr('{SECRET}')",
    f"machine h\n  login me\n  password {SECRET}",
    f"Driver={{x}};UID=a;PWD={SECRET};",
    f"curl -u me:{SECRET} https://h",
    f"docker login -u me -p {SECRET}",
    f"ENV API_KEY {SECRET}",
    f"api-key\t{SECRET}",
    f"api_key -> {SECRET}",
    f'api_key="""{SECRET}"""',
    f"%22api_key%22%3A%22{SECRET}%22",
    f"GET https://h/api?securityToken={SECRET}&a=1",
    f"HF_TOKEN is set to {SECRET}",
    f"Incorrect API key provided: {SECRET}.",
    f"the token '{SECRET}' is invalid",
    f"https://hooks.slack.com/services/T0001/B0001/{SECRET}",
    f"https://api.telegram.org/bot123456:{SECRET}/sendMessage",
    f'{{"value": "{SECRET}", "name": "API_KEY"}}',
    f"- value: {SECRET}\n  name: HF_TOKEN",
    f"V1EnvVar(value='{SECRET}', name='HF_TOKEN')",
    f'<env value="{SECRET}" name="API_KEY"/>',
    f"<key>API_KEY</key>\n<string>{SECRET}</string>",
    f"<value>{SECRET}</value> <name>API_KEY</name>",
    f"PuTTY-User-Key-File-3: ssh-rsa\nPrivate-Lines: 2\n{SECRET}aa\n{SECRET}bb\nPrivate-MAC: 1f2e",
    f"key={SECRET}",
    f"the key: '{SECRET}'",
    f"* DB_SERVER_ZBX_PASS: {SECRET}",
    f"DBPASS={SECRET}",
    f'"pass": "{SECRET}"',
    f"Password for user admin@example.com is {SECRET}",
    f"mail_pwd=r'\\'''\\'''\\''{SECRET}-'\\'''\\''",
    f"/d:sonar.login={SECRET}",
    f"wandb login {SECRET}",
    f"mysql -uroot -p{SECRET} db",
    f"redis-cli -h h -a {SECRET} ping",
    f"requirepass {SECRET}",
    f"Unseal Key 1: {SECRET}=",
    f"jdbc:oracle:thin:scott/{SECRET}@//h:1521/x",
    f"keytool -storepass {SECRET}",
    f"PresharedKey = {SECRET}=",
    f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{SECRET}\n-----END PGP PRIVATE KEY BLOCK-----",
    *(f"{prefix}{SECRET}{SECRET}" for prefix in PREFIXES),
]


@pytest.mark.parametrize("text", OTHER_NOTATIONS)
def test_secret_in_another_notation_is_masked(text: str) -> None:
    redacted = redact(text)
    assert SECRET not in redacted
    assert MASK in redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "(token, 'text') ['bos_token', 'eos_token'] ('password', 'username') [--api-key, --port]",
        "draft token -> input id; user and password in the address; -u 1000:1000",
        "<title>a page</title> name: model value: 5 TokenCounter('words') tokens\t512",
        "key=value key: model.layers.0.self_attn.q_proj.weight key=Qwen2.5-0.5B-Instruct keys: 12",
        "cache key: 9f86d081884c7d659a2feaa0c55ad015 key=sha256:9f86d081884c7d659a2feaa0c55ad015",
        "key=0193e3a6-8d21-7c5b-9c1f-1234567890ab key=torch.compile/Inductor2 key: /root/.cache/Xy12Zw34Vu56Ts78",
        "pin_memory=True pin: 3 pin: GPIO17 PASS: test_gpu2 first_pass=12 forward_pass: 3.5 pass=fp16 bypass=on2",
        '{"value": 3.2, "name": "prompt_tokens"} {"name": "tokens", "value": 512} value: 5, name: step',
        "secret_sharing secret_key_store login successful, login node-0123456789 user login: required",
        "password for bob is required, the token for step 5 is 17, the key for layer3 is missing",
        "<name>x</name><value>5</value> mysql -h h db jina_embeddings_v3 npm_config_user_agent_of_the_package_manager",
        "the token after the prompt Qwen2.5-0.5B-Instruct is /models/Llama-3-8B",
    ],
)
def test_harmless_text_in_other_notations_is_shown(text: str) -> None:
    assert redact(text) == text


KEY = [
    f"-----BEGIN {SECRET_KEY}-----",
    "Proc-Type: 4,ENCRYPTED",
    "",
    *(f"Zq9x{line:060}" for line in range(8)),
    "Zq9x==",
]
KEY.append(f"-----END {SECRET_KEY}-----")


def test_key_that_arrives_line_by_line_is_masked_and_the_lines_around_it_are_not() -> None:
    redact_line = LineRedactor()
    before, after = "(EngineCore pid=7) the key is", "loaded 12 weights"
    lines = [redact_line(line) for line in (before, *KEY, after)]
    assert (lines[0], lines[-1]) == (before, after)
    assert "Zq9x" not in "".join(lines)
    lines = [redact_line(f"(EngineCore pid=7) {line}") for line in KEY]
    assert "Zq9x" not in "".join(lines)


def test_line_behind_an_unfinished_key_is_shown() -> None:
    redact_line = LineRedactor()
    assert redact_line(KEY[0]) == MASK
    assert redact_line("the file has no end") == "the file has no end"
    assert redact_line("a1b2") == "a1b2"


@pytest.mark.parametrize("since", range(1, len(KEY)))
def test_last_lines_of_a_key_are_masked(since: int) -> None:
    redacted = redact("\n".join([*KEY[since:], "loaded", *KEY[since:], "ready"]))
    assert "Zq9x" not in redacted
    assert redacted.endswith(f"{MASK}\nready")


def test_pin_is_masked_alone() -> None:
    assert redact("pin: 4829, PIN=123456, 'pin': '0042'") == f"pin: {MASK}, PIN={MASK}, 'pin': '{MASK}'"
    assert redact_value("pin", 4829) == redact_value("card_pin", "0042") == MASK
    assert redact_value("pin", 12) == 12


def test_attribute_named_key_is_masked_if_it_looks_generated() -> None:
    generated = "Zq9xKs72LmWvTr41"
    assert redact_value("key", generated) == MASK
    assert redact_value("key", "model.embed_tokens.weight") == "model.embed_tokens.weight"
    assert redact_value("cache_key", generated) == generated
