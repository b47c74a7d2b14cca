"""A stand-in for vLLM, and for what it imports: a fork server is there at once, and a command shows its own state."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

MAIN = """\
import json, os, random, resource, signal, sys, threading, time

def state():
    names = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            names[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass
    umask = os.umask(0)
    return dict(
        arguments=sys.argv, folder=os.getcwd(), environment={k: v for k, v in os.environ.items() if k != "LC_CTYPE"},
        path=sys.path[0], name=sys.modules["__main__"].__name__, file=getattr(sys.modules["__main__"], "__file__", None),
        umask=umask, limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0], cpus=sorted(os.sched_getaffinity(0)),
        priority=os.getpriority(os.PRIO_PROCESS, 0), blocked=sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        handlers={int(s): str(signal.getsignal(s)) for s in signal.valid_signals() if signal.getsignal(s) is not None},
        command=open("/proc/self/cmdline").read(), comm=open("/proc/self/comm").read(),
        descriptors=names, threads=threading.active_count(), encoding=sys.stdout.encoding, buffered=sys.stdout.line_buffering,
        python=[sys.executable, sys.prefix, sys.flags.safe_path], torch=getattr(__import__("torch"), "threads", None),
    )

def send_state(sender):
    sender.send(state())
    time.sleep(1000)

def send_state_of_worker(sender):
    from phasebus.initializer.engines.vllm.inside.forkserver.process import ForkContext
    receiver, worker_sender = ForkContext().Pipe(duplex=False)
    worker = ForkContext().Process(target=send_state, args=(worker_sender,))
    worker.start()
    sender.send({**receiver.recv(), "pid": worker.pid, "method": worker._popen.method})
    time.sleep(1000)

def main():
    what = sys.argv[1] if len(sys.argv) > 1 else "state"
    if what == "state":
        print(json.dumps({**state(), "input": sys.stdin.read(), "random": random.random()}))
    elif what == "exit":
        sys.exit(int(sys.argv[2]))
    elif what == "raise":
        raise ValueError("from the command")
    elif what == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        print("waiting", os.getpid(), flush=True)
        while True:
            time.sleep(1000)
"""


TORCH = """\
import os

threads = len(os.sched_getaffinity(0))

def get_num_threads():
    return threads

def set_num_threads(number):
    global threads
    threads = number
"""


def write_stub(folder: Path) -> tuple[str, dict[str, str]]:
    """Write the stand-in; return the path of its console script, and an environment that finds it."""
    for module in ("torch", "transformers", "vllm"):
        (folder / "modules" / module).mkdir(parents=True)
        (folder / "modules" / module / "__init__.py").touch()
    (folder / "modules" / "torch" / "__init__.py").write_text(TORCH)
    (folder / "modules" / "vllm" / "stub.py").write_text(MAIN)
    (folder / "modules" / "vllm" / "run.py").write_text("from vllm.stub import main\nmain()\n")
    script = folder / "vllm"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom vllm.stub import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    )
    script.chmod(0o755)
    return str(script), stub_environment(folder, os.environ)


def stub_environment(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with the stand-in, and with a private folder for the server's socket."""
    kept = {name: value for name, value in environment.items() if not name.startswith(("PHASEBUS_", "COV_"))}
    return {**kept, "PYTHONPATH": str(folder / "modules"), "PHASEBUS_RUNTIME_DIR": str(folder / "runtime")}
