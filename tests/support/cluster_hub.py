"""The hub of a cluster, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx


class Hub:
    """A hub at a port of loopback, which may not have started yet."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers={"Accept": "text/plain"}, timeout=60)

    def state(self) -> Any:
        return self.get("/state").json()

    def says(self, status: int, **nodes: str) -> bool:
        """Whether its /readyz answers with `status` and lists exactly these nodes in these states."""
        try:
            answer = self.get("/readyz")
        except httpx.TransportError:
            return False
        known = {node["name"].replace("-", "_"): node["status"] for node in answer.json()["nodes"]}
        return answer.status_code == status and known == nodes
