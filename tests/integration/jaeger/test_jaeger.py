"""A start-up read back from a real Jaeger: the one that JAEGER_QUERY_URL names, which receives OTLP as well.

```console
docker run --rm -p 16686:16686 -p 4318:4318 jaegertracing/jaeger:2.11.0
JAEGER_QUERY_URL=http://localhost:16686 make test ARGS='tests/integration/jaeger'
```
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.command import Command
from tests.support.waiting import wait_until


@pytest.fixture
def jaeger() -> str:
    """The URL of Jaeger's query API."""
    url = os.environ.get("JAEGER_QUERY_URL")
    if not url:
        pytest.skip("JAEGER_QUERY_URL names no Jaeger; no registry has one to install")
    return url.rstrip("/")


@pytest.fixture
def otlp(jaeger: str) -> str:
    """The URL that receives OTLP over HTTP: JAEGER_OTLP_URL, or port 4318 of the same machine."""
    return os.environ.get("JAEGER_OTLP_URL") or f"http://{urlsplit(jaeger).hostname}:4318"


@pytest.fixture
def start(tmp_path: Path, otlp: str) -> Iterator[Command]:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    config = tmp_path / "node.yaml"
    config.write_text(f"model: {tmp_path / 'model'}\nengine: none\nservice: {{port: null}}\n")
    command = Command("up", str(config), "--once", state=tmp_path, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": otlp})
    yield command
    command.close()


def test_a_start_up_is_one_whole_trace_in_jaeger(jaeger: str, start: Command) -> None:
    assert start.wait() == 0, start.stderr
    run = start.journal()
    wait_until(lambda: len(spans(jaeger, run.trace)) >= len(run.steps), "the trace is there")
    found = spans(jaeger, run.trace)
    ids = {span["spanId"] for span in found}
    roots = [span for span in found if not span.get("parentSpanId")]
    assert [span["name"] for span in roots] == ["node init"]
    assert {span["parentSpanId"] for span in found if span not in roots} <= ids
    assert len({span["traceId"] for span in found}) == 1
    assert {"phase download", "phase post_initialization"} <= {span["name"] for span in found}


def spans(jaeger: str, trace: str) -> list[dict[str, Any]]:
    """Return the spans of a trace as OTLP JSON; none if the trace is not there."""
    answer = httpx.get(f"{jaeger}/api/v3/traces/{trace}", timeout=30)
    if answer.status_code == httpx.codes.NOT_FOUND:
        return []
    resources = answer.raise_for_status().json()["result"]["resourceSpans"]
    return [span for each in resources for scope in each["scopeSpans"] for span in scope["spans"]]
