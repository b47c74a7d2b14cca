"""A server with the part of the hub's protocol that `huggingface_hub` and downloads use, and a network in front of it.

Small files come from the hub itself; large ones, as on the real hub, from a content delivery network: another host, by
way of a redirect to a signed address.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

SIGNATURE = "X-Amz-Signature=5ec4e7f00d"
"""The query of every address of the content delivery network: a secret."""

_LARGE = 4096


@dataclass
class Repository:
    """A model on the hub.

    Attributes:
        files: Its files, by name.
        commit: The commit that ``main`` is at.
        token: The token that is required; None if it is public.
        gated: Whether its terms have to be accepted first.
    """

    files: dict[str, bytes]
    commit: str = "c0ffee" * 6 + "beef"
    token: str | None = None
    gated: bool = False


@dataclass
class Request:
    """A request that was answered."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class HubServer:
    """A running hub.

    Attributes:
        url: Its address, for HF_ENDPOINT.
        repositories: What it has, by name.
        delivery: The address large files come from. A test may put another server in between.
        requests: What it was asked for, in order.
        sent: How many bytes of files it has sent.
        answers: Answers to give in place of the usual ones, by path, used up one by one: status, headers, body.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    delivery: str = ""
    requests: list[Request] = field(default_factory=list)
    sent: int = 0
    answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)

    def of(self, path: str) -> list[Request]:
        """Return the requests for paths that contain `path`."""
        return [each for each in self.requests if path in each.path]


@lru_cache(maxsize=64)  # what is large takes long, and is asked for with every listing
def git_id(content: bytes) -> str:
    """Return the id of a git blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@lru_cache(maxsize=64)
def sha256(content: bytes) -> str:
    """Return the digest that a large file is known by."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Run a hub on a free port."""
    hub = HubServer()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.delivery = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients close connections on purpose."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        hub.requests.append(
            Request(self.command, self.path, {key.lower(): value for key, value in self.headers.items()})
        )
        if hub.answers.get(path):
            status, headers, body = hub.answers[path].pop(0)
            return self._answer(status, headers, body)
        if matched := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            return self._describe(matched[1], unquote(matched[2] or "main"))
        if matched := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            return self._tree(matched[1], unquote(matched[2]))
        if matched := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(matched[1], unquote(matched[2]), unquote(matched[3]))
        if matched := re.fullmatch(r"/delivery/([0-9a-f]{64})", path):
            for repository in hub.repositories.values():
                for content in repository.files.values():
                    if sha256(content) == matched[1]:
                        return self._send(content, f'"{matched[1]}"')
        return self._answer(404, {}, b"")

    def _repository(self, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        shown = self.headers.get("Authorization", "")
        if repository is None or (repository.token and shown != f"Bearer {repository.token}"):
            self._answer(404 if shown else 401, {"X-Error-Code": "RepoNotFound"}, b"")
        elif repository.gated:
            self._answer(403, {"X-Error-Code": "GatedRepo"}, b"")
        elif revision not in {"main", repository.commit}:
            self._answer(404, {"X-Error-Code": "RevisionNotFound"}, b"")
        else:
            return repository
        return None

    def _describe(self, name: str, revision: str) -> None:
        if (repository := self._repository(name, revision)) is None:
            return
        siblings = []
        for file, content in repository.files.items():
            sibling: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": git_id(content)}
            if len(content) >= _LARGE:
                digest = sha256(content)
                sibling["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 134}
            siblings.append(sibling)
        body = json.dumps({"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings}).encode()
        self._answer(200, {"Content-Type": "application/json"}, body)

    def _tree(self, name: str, revision: str) -> None:
        if (repository := self._repository(name, revision)) is None:
            return
        entries = []
        for file, content in repository.files.items():
            entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": git_id(content)}
            if len(content) >= _LARGE:
                digest = sha256(content)
                entry["lfs"] = {"size": len(content), "oid": digest, "pointerSize": 134}
            entries.append(entry)
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(entries).encode())

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if (repository := self._repository(name, revision)) is None:
            return
        content = repository.files.get(file)
        if content is None:
            self._answer(404, {"X-Error-Code": "EntryNotFound"}, b"")
        elif len(content) >= _LARGE:
            digest = sha256(content)
            headers = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            headers |= {"X-Repo-Commit": repository.commit, "ETag": f'"{digest}"'}
            headers["Location"] = f"{self.hub.delivery}/delivery/{digest}?{SIGNATURE}"
            self._answer(302, headers, b"")
        else:
            self._send(content, f'"{git_id(content)}"', {"X-Repo-Commit": repository.commit})

    def _send(self, content: bytes, tag: str, headers: Mapping[str, str] | None = None) -> None:
        start = 0
        headers = {**(headers or {}), "ETag": tag, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.headers.get("If-Range", tag) == tag:
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            if start >= len(content):
                self._answer(416, {**headers, "Content-Range": f"bytes */{len(content)}"}, b"")
                return
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self._answer(206, headers, content[start : end + 1])
        else:
            self._answer(200, headers, content)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        view = memoryview(body)
        for at in range(0, len(view), 65536):
            block = view[at : at + 65536]
            self.hub.sent += len(block)  # before the client can have it, and a test look
            self.wfile.write(block)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""
