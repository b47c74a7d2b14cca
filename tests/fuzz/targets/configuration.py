"""Files in place of a configuration. They are read, or rejected with a message that a terminal can show."""

from __future__ import annotations

import tempfile
from pathlib import Path

from phasebus.initializer.node.config import load_config
from phasebus.initializer.pipeline.errors import ConfigError

_FILE = Path(tempfile.mkdtemp(prefix="phasebus-fuzz-")) / "config.yaml"

_WHOLE = b"""
model: hf://org/name
engine: none
nodes: 2
replicas: 1
retries: 3
service: {port: 0, host: localhost}
engine_args: {max_model_len: 256, api_key: abc123def}
engine_env: {HF_TOKEN: abc}
extra_files: [[a, b]]
download: {concurrency: 4, stall_seconds: 1.5}
placement: {bundles: [{CPU: 1}], strategy: PACK}
"""

INSTRUMENTED = ["phasebus.initializer.pipeline", "phasebus.initializer.node.config"]
SEEDS = [
    _WHOLE,
    b"model: /m\nray: {address: auto, num_cpus: 4}\nengine_timeout_seconds: 9e-1\n",
    b"a: &a [x, x]\nb: &b [*a, *a]\nmodel: *b\n",
    b"model: &m {<<: {a: 1}, b: !!binary aGk=, c: 2020-01-01, d: 1:30, e: 0x10, f: .inf, g: ~}\n",
    b'model: "\\ud800\\u202e\\x07"\nname: |\n  lines\n  of text\n? [a]\n: x\n',
    b"model: ${A:-m}\nnodes: ${B:-2}\nengine_args: {a: '${HOME}', b: $$x, ${C:-d}: &r ${D:-1e3}, e: *r}\n",
    b"model: m\nengine_args: {a: " + b"[" * 60 + b"]" * 60 + b"}\n",
]
TOKENS = [
    b"model: ", b"nodes: ", b"service: ", b"engine_args: ", b"download: ", b"placement: ", b"<<: ", b"&a ", b"*a", b"!!",
    b"!!python/object:", b"!!binary ", b"!!set ", b"!!omap ", b"!!timestamp ", b"? ", b"- ", b"---\n", b"...\n", b"%YAML 1.1\n",
    b"%TAG ! !\n", b".nan", b".inf", b"~", b"1e999", b"0x", b"1_0", b"2020-01-01T00:00:00Z", b"1:30", b"\\ud800", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\xc2\x85", b"|\n", b">-\n", b"${", b"${HOME}", b"${A:-", b":-1}", b"$$", b"$", b"}",
]  # fmt: skip


def check(data: bytes) -> None:
    """Read the file as a node's configuration. Callbacks are left out: they would be imported."""
    if b"allbacks" in data:
        return
    _FILE.write_bytes(data)
    try:
        load_config(_FILE)
    except ConfigError as error:
        message = str(error)
        message.encode()
        assert "\x1b" not in message
