"""`phasebus watch` of a server that is no service of phasebus, or of a hostile one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer.cli import main
from phasebus.initializer.cli.remote import _lines

_STEP = {"id": "a", "node": "n", "kind": "node", "name": "n", "outcome": "running", "start": 1.0}


@contextmanager
def event_stream(data: str) -> Iterator[str]:
    """Serve an event stream with one state; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(f'event: state\ndata: {data}\n\nevent: closed\ndata: {{"now": 1}}\n\n'.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "data",
    [
        '{"now": 1, "steps": [1]}',
        '{"now": 1, "steps": [{"id": "a", "node": "n", "kind": "node", "name": "n", "start": 1}]}',
        '{"now": 1, "steps": [{"id": "a", "node": "n", "kind": "node", "name": ["n"], "outcome": "running", "start": 1}]}',
        '{"now": NaN, "steps": []}',
        "[" * 100_000,
        "x" * 2_000,
    ],
    ids=["number", "no outcome", "name", "nan", "deep", "long"],
)
def test_watch_of_another_service_is_an_error_that_says_so(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if data.startswith("x"):
        monkeypatch.setattr("phasebus.initializer.cli.remote.MAX_LINE_CHARACTERS", 1_000)
    with event_stream(data) as url:
        result = CliRunner().invoke(main, ["watch", url])
    assert result.exit_code == 1
    assert "sent an event that is not one of a phasebus service" in result.output


def test_watch_shows_printable_text_alone() -> None:
    with event_stream(json.dumps({"now": 1, "steps": [_STEP | {"name": "\x1b[31mn\u2028\u202e"}]})) as url:
        result = CliRunner().invoke(main, ["watch", url])
    assert "\\x1b[31mn" in result.output
    assert not {"\x1b", "\u2028", "\u202e"} & set(result.output)


@given(st.text("ab\r\n\u2028"), st.lists(st.integers(0, 20)))
def test_lines_of_an_event_stream_are_those_of_the_whole_text(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(text)]
    parts = [text[begin:end] for begin, end in pairwise(places)]
    assert list(_lines(parts)) == [line.removesuffix("\r") for line in text.split("\n")[:-1]]
