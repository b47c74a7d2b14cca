"""How connections behave, as the operating system knows them."""

from __future__ import annotations

import asyncio
import socket


def sends_small_packets_at_once(listener: socket.socket) -> bool:
    """Return whether asyncio switches off Nagle's algorithm for a connection that `listener` accepts."""

    async def accepted_option() -> bool:
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
            writer.close()

        async with await asyncio.start_server(accepted, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            try:
                return await found
            finally:
                writer.close()

    return asyncio.run(accepted_option())
