"""Bodies that a proxy or a server has compressed although identity was requested (RFC 9110, 8.4).

Proxies compress texts, and storage may keep a file compressed. Browsers and clients such as requests and httpx decode these
bodies unnoticed. The size that such a response states is that of the compressed bytes, and so are its ranges.
"""

from __future__ import annotations

import zlib
from typing import Final

_GZIP: Final = 16 + zlib.MAX_WBITS
_MAGIC: Final = b"\x1f\x8b"
_NAMES: Final = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


class EncodingError(ValueError):
    """Raised when compressed bytes are damaged, or end too early."""


class Decoder:
    """Decodes the compressed bytes of one body.

    Args:
        name: The encoding; see `is_supported`.
    """

    def __init__(self, name: str) -> None:
        self._bits = _NAMES[name]
        self._decompressor = zlib.decompressobj(self._bits)
        self._received = b""
        self._is_new = True
        self._is_full = False

    def decode(self, room: memoryview) -> int:
        """Decode bytes into `room`; return their number, 0 if more bytes have to be added first.

        Raises:
            EncodingError: The bytes are damaged.
        """
        while self._received or self._is_full:
            if self._decompressor.eof and not self._begin_next_part():
                return 0
            try:
                decoded = self._decompress(len(room))
            except zlib.error:
                raise EncodingError("the compressed bytes are damaged") from None
            self._is_full = len(decoded) == len(room)  # there may be more, also without further bytes
            if decoded:
                room[: len(decoded)] = decoded
                return len(decoded)
        return 0

    def add(self, received: memoryview) -> None:
        """Add received bytes.

        Args:
            received: The bytes; none at the end.

        Raises:
            EncodingError: The end is too early.
        """
        if not received and not self._decompressor.eof and not self._is_new:
            raise EncodingError("the compressed bytes end too early")
        self._received += received

    def _begin_next_part(self) -> bool:
        """Begin the next part, which a file of gzip may have; return whether there is one. Other bytes are dropped."""
        self._is_full = False
        begin = self._received[: len(_MAGIC)]
        if self._bits != _GZIP or not _MAGIC.startswith(begin):
            self._received = b""
        if len(self._received) < len(_MAGIC):
            return False
        self._decompressor = zlib.decompressobj(self._bits)
        return True

    def _decompress(self, most: int) -> bytes:
        if self._is_new and self._bits == zlib.MAX_WBITS and self._received[0] & 0x0F != zlib.DEFLATED:
            self._decompressor = zlib.decompressobj(-zlib.MAX_WBITS)  # without a header, as some servers send it
        self._is_new = False
        decoded = self._decompressor.decompress(self._received, most)
        self._received = self._decompressor.unconsumed_tail or self._decompressor.unused_data
        return decoded


def is_supported(encoding: str) -> bool:
    """Return whether `Decoder` decodes an encoding."""
    return encoding in _NAMES
