"""The command line as a person runs it: a process of its own, watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from phasebus.telemetry.journal import Run, read_journal
from tests.support.waiting import wait_until


class Command:
    """A running `phasebus`, and every process it has been seen to start.

    Args:
        arguments: What comes after `phasebus`.
        state: The folder of its journals.
        environment: Variables over those of this process.
    """

    def __init__(self, *arguments: str, state: Path, environment: Mapping[str, str] | None = None) -> None:
        self._state = state
        self._process = subprocess.Popen(
            [sys.executable, "-m", "phasebus.initializer.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PHASEBUS_STATE_DIR": str(state), **(environment or {})},
        )
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._readers = [threading.Thread(target=self._read, args=(name,)) for name in self._lines]
        for reader in self._readers:
            reader.start()
        self._seen: set[psutil.Process] = set()

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return "".join(self._lines["stdout"])

    @property
    def stderr(self) -> str:
        """What it has said on standard error so far."""
        return "".join(self._lines["stderr"])

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def url(self) -> str:
        """Return where its service is, once it has said so."""
        wait_until(lambda: "/metrics" in self.stderr or self.ended, "it says where its metrics are")
        assert not self.ended, self.stderr
        return self.stderr.partition("http://")[2].partition("/metrics")[0]

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Return what its service answers."""
        return httpx.get(f"http://{self.url()}{path}", headers=headers, timeout=30)

    def look(self) -> None:
        """Take note of the processes that it has started by now."""
        try:
            self._seen.update(psutil.Process(self._process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return

    def processes(self) -> dict[str, psutil.Process]:
        """Return the processes that it has started, by the first part of their command lines."""
        self.look()
        found = {}
        for process in self._seen:
            with suppress(psutil.Error):  # it ends just now, or has not been waited for
                if process.is_running() and (line := process.cmdline()):
                    found[line[0]] = process
        return found

    def wait_for(self, kind: str, name: str) -> None:
        """Return once a step of this kind and name runs."""
        wait_until(lambda: self._runs(kind, name), f"the step {kind} {name} runs", seconds=300)

    def _runs(self, kind: str, name: str) -> bool:
        assert not self.ended, self.stderr
        self.look()
        running = self.get("/readyz").json()["running"]
        return any((step["kind"], step["name"]) == (kind, name) for step in running)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.look()
        self._process.send_signal(number)

    def wait(self, seconds: float = 300) -> int:
        """Return its exit code, once it has ended."""
        code = self._process.wait(seconds)
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        print(self.stderr)  # pytest shows it with a test that fails
        return code

    def left_behind(self) -> list[str]:
        """Return the command lines of the processes it has started that still run."""
        _, alive = psutil.wait_procs(list(self._seen), timeout=30)
        return [" ".join(process.cmdline()) for process in alive if process.status() != psutil.STATUS_ZOMBIE]

    def journal(self) -> Run:
        """Read its journal."""
        (path,) = self._state.glob("runs/*.jsonl")
        return read_journal(path)

    def close(self) -> None:
        """End it, whatever it does, and all that it has started."""
        if not self.ended:
            self.look()
            self._process.kill()
            for process in self._seen:  # first, because one of them may hold the pipes that `wait` reads to their end
                if process.is_running():
                    process.kill()
            self.wait()

    def _read(self, name: str) -> None:
        for line in getattr(self._process, name):
            self._lines[name].append(line)


def phases(run: Run) -> dict[str, str]:
    """Return how each phase of a run has ended."""
    return {step.name: step.outcome for step in run.steps if step.kind == "phase"}
