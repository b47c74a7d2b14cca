"""The body of a web server's response, as a `Body`."""

from __future__ import annotations

from http.client import HTTPException

from phasebus.initializer.downloads.errors import TransferError
from phasebus.initializer.downloads.protocol import BLOCK
from phasebus.initializer.downloads.sources.encodings import Decoder, EncodingError
from phasebus.initializer.downloads.sources.headers import content_encoding, content_length, content_range, strong_etag
from phasebus.initializer.downloads.sources.responses import Response


class HttpBody:
    """The body of a response; see `Body`.

    Args:
        response: The response.
        start: The first byte that was requested.
        stall: The time limit, for messages.

    Attributes:
        headers: The headers of the response.

    Raises:
        TransferError: The response has other bytes than the requested ones.
        DownloadError: It states an impossible length.
    """

    def __init__(self, response: Response, start: int, stall: float) -> None:
        self.headers = response.headers
        self._response = response
        self._stall = stall
        self._received = 0
        self._expected: int | None
        self.start = 0
        self.size: int | None
        self.validator = strong_etag(response.headers)
        encoding = content_encoding(response.headers)
        self._decoder = None if encoding is None or response.status == 416 else Decoder(encoding)
        if response.status == 200:
            self.size = self._expected = content_length(response.headers)
            self._drop_encoded_size()
            return
        content_length(response.headers)
        self.start, self._expected, self.size = content_range(response.headers)
        if response.status == 416 and self.size == start:
            self.start, self._expected = start, 0
        if self._expected is None or self.start != start or (start and encoding is not None):
            raise TransferError(f"the bytes from {start} on were requested, and the server sends others")
        self._drop_encoded_size()

    def _drop_encoded_size(self) -> None:
        """Forget the size and the validator if they are those of compressed bytes."""
        if self._decoder is not None:
            self.size = self.validator = None

    def receive(self, room: memoryview) -> memoryview:
        """Receive the next bytes into `room` and return them; an empty view at the end."""
        if self._response.status == 416:
            return room[:0]
        return self._receive(room) if self._decoder is None else self._receive_encoded(room, self._decoder)

    def _receive_encoded(self, room: memoryview, decoder: Decoder) -> memoryview:
        try:
            while not (count := decoder.decode(room)):
                received = self._receive(memoryview(bytearray(BLOCK)))
                decoder.add(received)
                if not received:
                    break
        except EncodingError as error:
            raise TransferError(str(error)) from None
        return room[:count]

    def _receive(self, room: memoryview) -> memoryview:
        try:
            count = self._response.receive(room)
        except TimeoutError:
            raise TransferError(f"next to no bytes arrived for {self._stall:g} s") from None
        except (OSError, HTTPException, ValueError) as error:
            raise TransferError(f"the connection broke ({type(error).__name__})") from None
        self._received += count
        if not count and self._expected is not None and self._received != self._expected:
            raise TransferError(f"the connection ended after {self._received} of {self._expected} bytes")
        return room[:count]

    def stop(self) -> None:
        """End the transfer, from any thread."""
        self._response.stop()

    def close(self) -> None:
        """Close the connection, or keep it for further requests if the body was read."""
        self._response.close()
