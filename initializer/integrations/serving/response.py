"""A response that has begun and has not been sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from starlette.datastructures import MutableHeaders
from starlette.types import Message

from phasebus.initializer.pipeline.errors import CallbackError

ChunkFunction = Callable[[bytes], bytes | Awaitable[bytes]]


class ResponseStart:
    """The start of a response.

    Attributes:
        status: The HTTP status; writable.
    """

    __slots__ = ("_functions", "_message", "_mutable_headers", "status")

    def __init__(self, message: Message) -> None:
        self._message = message
        self._mutable_headers: MutableHeaders | None = None
        self._functions: list[ChunkFunction] = []
        self.status: int = message["status"]

    @property
    def headers(self) -> MutableHeaders:
        """The headers; writable."""
        if self._mutable_headers is None:
            self._mutable_headers = MutableHeaders(raw=list(self._message.get("headers", ())))
        return self._mutable_headers

    def each_chunk(self, function: ChunkFunction) -> None:
        """Replace each chunk of the body, as the application sends it, by the result of `function`.

        The body remains a stream: each chunk is sent at once. Several functions are applied in the order in which they were
        added. The response is sent without Content-Length, because its length is unknown.

        Raises:
            CallbackError: The body is compressed, so the functions would receive compressed chunks.
        """
        if encoding := self.headers.get("content-encoding"):
            raise CallbackError(
                f"the body is compressed already (content-encoding: {encoding}); compress it outside of "
                "ServingMiddleware: with add_middleware, in a line after the one that adds it"
            )
        self._functions.append(function)
        if "content-length" in self.headers:
            del self.headers["content-length"]

    @property
    def message(self) -> Message:
        """The message that starts the response, with all changes."""
        message = {**self._message, "status": self.status}  # the application may send its message again
        if self._mutable_headers is not None:
            message["headers"] = self._mutable_headers.raw
        return message

    @property
    def rewritten(self) -> bool:
        """Whether a function changes the body."""
        return bool(self._functions)

    async def chunk(self, message: Message) -> Message:
        """Return a message of the body, changed by the functions.

        Raises:
            Exception: The error of a function, with a note that names it.
        """
        chunk = bytes(message.get("body", b""))
        if chunk:
            for function in self._functions:
                try:
                    made = function(chunk)
                    chunk = await made if isawaitable(made) else made
                    if not isinstance(chunk, bytes):
                        raise TypeError(f"it must return bytes, not {type(chunk).__name__}")
                except Exception as error:
                    error.add_note(f"raised by {getattr(function, '__qualname__', function)!r}, given to each_chunk")
                    raise
        return {**message, "body": chunk}
