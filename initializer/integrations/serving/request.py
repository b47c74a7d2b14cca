"""A request that callbacks may read and change; the application still receives the whole body."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request as StarletteRequest
from starlette.types import Message, Receive


class Request(StarletteRequest):
    """A Starlette request with writable headers. It keeps a body that callbacks read, for the application.

    Reading the body holds it in memory. If no callback reads it, it is streamed to the application.
    """

    _mutable_headers: MutableHeaders | None = None
    _content: bytes | None = None

    @property
    def headers(self) -> MutableHeaders:  # read-only in Starlette
        """The headers; the application receives all changes to them."""
        if self._mutable_headers is None:
            self._mutable_headers = MutableHeaders(scope=self.scope)
        return self._mutable_headers

    async def body(self) -> bytes:
        """Return the whole body; the first call reads it from the client."""
        if self._content is None:
            self._content = b"".join([chunk async for chunk in super().stream()])
        return self._content

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, and keep it for the application."""
        yield await self.body()
        yield b""

    def replace(
        self, *, method: str | None = None, path: str | None = None, query: str | None = None, body: bytes | None = None
    ) -> None:
        """Replace the method, path, query or body that the application receives; None keeps the current value."""
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
        """Whether no callback has read or replaced the body."""
        return self._content is None

    def replayed(self, receive: Receive) -> Receive:
        """Return the `receive` with the body that callbacks have read or replaced."""
        messages: list[Message] = [{"type": "http.request", "body": self._content, "more_body": False}]

        async def replay() -> Message:
            if messages:
                return messages.pop()
            while (message := await receive())["type"] == "http.request":
                pass  # skip the original body
            return message

        return replay
