"""A real nginx that serves a folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.programs import free_port, program
from tests.support.waiting import wait_until

_CONFIGURATION = """
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
  log_format sent '$body_bytes_sent';
  access_log {folder}/sent.log sent;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000;
  server {{
    listen 127.0.0.1:{port};
    root {root};
    {more}
  }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx.

    Attributes:
        url: Its address.
        root: The folder it serves.
    """

    url: str
    root: Path


@contextmanager
def nginx(folder: Path, more: str = "") -> Iterator[Nginx]:
    """Run nginx on a free port; it keeps its files in `folder`, and `more` is added to its server's configuration."""
    path = program("nginx", "nginx")
    server = Nginx(f"http://127.0.0.1:{free_port()}", folder / "root")
    server.root.mkdir(parents=True)
    port = server.url.rpartition(":")[2]
    user = "user root;" if Path("/proc/self").stat().st_uid == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(folder=folder, port=port, root=server.root, user=user, more=more), encoding="ascii"
    )
    process = subprocess.Popen([path, "-e", str(folder / "error.log"), "-c", str(configuration)])
    try:
        wait_until(lambda: _answers(server.url), "nginx answers")
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 500
    except httpx.TransportError:
        return False
