"""A request that callbacks may read and change, and that the application still receives whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request as StarletteRequest
from starlette.types import Message, Receive


class Request(StarletteRequest):
    """A Starlette request whose headers can be written, and whose body is kept for the application once it is read.

    Reading the body holds it in memory; a request whose callbacks leave the body alone is streamed through as it comes.
    """

    _mutable_headers: MutableHeaders | None = None
    _content: bytes | None = None

    @property
    def headers(self) -> MutableHeaders:  # those of Starlette's cannot be written
        """The headers; what is written to them is what the application sees."""
        if self._mutable_headers is None:
            self._mutable_headers = MutableHeaders(scope=self.scope)
        return self._mutable_headers

    async def body(self) -> bytes:
        """Return the whole body, read from the client at the first call."""
        if self._content is None:
            self._content = b"".join([chunk async for chunk in super().stream()])
        return self._content

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body; all of it is kept, for the application to read again."""
        yield await self.body()
        yield b""

    def replace(
        self, *, method: str | None = None, path: str | None = None, query: str | None = None, body: bytes | None = None
    ) -> None:
        """Have the application see another method, path, query or body; what is None stays as it is."""
        if method is not None:
            self.scope["method"] = method
        if path is not None:
            self.scope["path"], self.scope["raw_path"] = path, quote(path).encode("ascii")
        if query is not None:
            self.scope["query_string"] = query.encode("latin-1")
        if body is not None:
            self._content = body
            self.headers["content-length"] = str(len(body))
            if "transfer-encoding" in self.headers:
                del self.headers["transfer-encoding"]
        for cached in ("_url", "_query_params", "_json", "_form"):
            if hasattr(self, cached):
                delattr(self, cached)

    @property
    def untouched(self) -> bool:
        """Whether the body has been left alone."""
        return self._content is None

    def replayed(self, receive: Receive) -> Receive:
        """Return what the application receives the body from that callbacks have read or replaced."""
        messages: list[Message] = [{"type": "http.request", "body": self._content, "more_body": False}]

        async def replay() -> Message:
            if messages:
                return messages.pop()
            while (message := await receive())["type"] == "http.request":
                pass  # what was replaced
            return message

        return replay
