"""A response that has begun and of which nothing has been sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from starlette.datastructures import MutableHeaders
from starlette.types import Message

from phasebus.initializer.pipeline.errors import CallbackError

ChunkFunction = Callable[[bytes], bytes | Awaitable[bytes]]


class ResponseStart:
    """The beginning of a response.

    Attributes:
        status: The HTTP status; may be set.
    """

    __slots__ = ("_functions", "_message", "_mutable_headers", "status")

    def __init__(self, message: Message) -> None:
        self._message = message
        self._mutable_headers: MutableHeaders | None = None
        self._functions: list[ChunkFunction] = []
        self.status: int = message["status"]

    @property
    def headers(self) -> MutableHeaders:
        """The headers; may be written."""
        if self._mutable_headers is None:
            self._mutable_headers = MutableHeaders(raw=list(self._message.get("headers", ())))
        return self._mutable_headers

    def each_chunk(self, function: ChunkFunction) -> None:
        """Have each chunk of the body, as the application sends it, replaced by what `function` makes of it.

        The body stays a stream: a chunk is sent as soon as it is made. Several functions are applied in the order they
        were given. The length is no longer known beforehand, so the response is sent without Content-Length.

        Raises:
            CallbackError: The body is compressed: the chunks would be changed in their compressed form.
        """
        if encoding := self.headers.get("content-encoding"):
            raise CallbackError(
                f"the body is compressed already (content-encoding: {encoding}); have it compressed outside of "
                "ServingMiddleware: with add_middleware, by a line after the one that adds it"
            )
        self._functions.append(function)
        if "content-length" in self.headers:
            del self.headers["content-length"]

    @property
    def message(self) -> Message:
        """The message that begins the response, as it stands."""
        message = {**self._message, "status": self.status}  # the application may send its own once more
        if self._mutable_headers is not None:
            message["headers"] = self._mutable_headers.raw
        return message

    @property
    def rewritten(self) -> bool:
        """Whether the body is changed."""
        return bool(self._functions)

    async def chunk(self, message: Message) -> Message:
        """Return a message of the body as it is to be sent.

        Raises:
            Exception: What one of the functions raised, with a note that names it.
        """
        chunk = bytes(message.get("body", b""))
        if chunk:
            for function in self._functions:
                try:
                    made = function(chunk)
                    chunk = await made if isawaitable(made) else made
                    if not isinstance(chunk, bytes):
                        raise TypeError(f"it has to return bytes, not {type(chunk).__name__}")
                except Exception as error:
                    error.add_note(f"raised by {getattr(function, '__qualname__', function)!r}, given to each_chunk")
                    raise
        return {**message, "body": chunk}
