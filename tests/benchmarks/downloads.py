"""Downloads beside other ways of fetching the same files from the same nginx over loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

from tests.benchmarks.download_contenders import BUCKET, MODEL
from tests.benchmarks.measuring import Number, Table
from tests.support.nginx import Nginx, nginx
from tests.support.programs import ROOT, program
from tests.support.waiting import wait_until

COMMIT = "0" * 40
LARGE = {f"part-{number}.bin": 500_000_000 for number in range(4)}
SMALL = {f"file-{number:03}.json": 20_000 for number in range(200)}
_FLOOR = "floor: read and write, no checks"

_HUB = f"""
    location ~ ^/{MODEL}/resolve/[^/]+/(.*)$ {{
      alias {{root}}/{BUCKET}/$1;
      add_header X-Repo-Commit {COMMIT};
    }}
    location ~ ^/api/models/{MODEL}/(revision|tree)/ {{
      default_type application/json;
      rewrite ^/api/models/{MODEL}/([a-z]+)/ /$1.json break;
    }}
    location = /{BUCKET} {{
      default_type application/xml;
      rewrite ^ /listing.xml break;
    }}
"""


@dataclass(frozen=True)
class Run:
    """What one run of a contender took: seconds, and bytes of memory above idle where that is known."""

    seconds: float
    memory: float | None = None


Contender = Callable[[Nginx, Path, list[str]], Run]


def tables() -> Iterable[Table]:
    """Measure everything; about two minutes, and 5 GB of disk."""
    with tempfile.TemporaryDirectory(prefix="phasebus-bench-") as folder, serving(Path(folder) / "l", LARGE) as server:
        yield _large(server, Path(folder))
        yield _killed(server, Path(folder))
    with tempfile.TemporaryDirectory(prefix="phasebus-bench-") as folder, serving(Path(folder) / "s", SMALL) as server:
        yield _small(server, Path(folder))


@contextmanager
def serving(folder: Path, sizes: dict[str, int]) -> Iterator[Nginx]:
    """Serve files of these sizes, as a hub's model and as a bucket."""
    with nginx(folder, _HUB.replace("{root}", str(folder / "root"))) as server:
        (server.root / BUCKET).mkdir()
        siblings, tree, objects = [], [], []
        for name, size in sizes.items():
            content = os.urandom(size)
            (server.root / BUCKET / name).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            lfs = {"size": size, "sha256": digest, "pointerSize": 134}
            siblings.append({"rfilename": name, "size": size, "blobId": digest[:40], "lfs": lfs})
            tree.append({"type": "file", "path": name, "size": size, "oid": digest[:40], "lfs": {**lfs, "oid": digest}})
            modified = "2026-01-01T00:00:00.000Z"
            objects.append(
                f"<Contents><Key>{escape(name)}</Key><LastModified>{modified}</LastModified><Size>{size}</Size></Contents>"
            )
        described = {"id": MODEL, "modelId": MODEL, "sha": COMMIT, "siblings": siblings}
        (server.root / "revision.json").write_text(json.dumps(described))
        (server.root / "tree.json").write_text(json.dumps(tree))
        (server.root / "listing.xml").write_text(
            f"<ListBucketResult><Name>{BUCKET}</Name><IsTruncated>false</IsTruncated>{''.join(objects)}</ListBucketResult>"
        )
        yield server


def _python(name: str, interpreter: str = sys.executable) -> Contender:
    def run(server: Nginx, folder: Path, names: list[str]) -> Run:
        script = Path(__file__).with_name("download_contenders.py")
        output = subprocess.run(
            [interpreter, str(script), name, server.url, str(folder), json.dumps(names)],
            env=_environment(server),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        ).stdout
        return Run(**json.loads(output))

    return run


def _environment(server: Nginx) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "AWS_ENDPOINT_URL": server.url,
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REGION": "us-east-1",
    }


def _curl(*, processes: int) -> Contender:
    path = program("curl", "curl")

    def run(server: Nginx, folder: Path, names: list[str]) -> Run:
        start = time.perf_counter()
        running = []
        for first in range(processes):
            urls = "".join(
                f'url = "{server.url}/{BUCKET}/{name}"\noutput = "{folder / name}"\n'
                for name in names[first::processes]
            )
            process = subprocess.Popen(
                [path, "--silent", "--parallel", "--parallel-max", "50", "--config", "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            assert process.stdin is not None
            process.stdin.write(urls.encode())
            process.stdin.close()
            running.append(process)
        assert all(process.wait() == 0 for process in running)
        return Run(time.perf_counter() - start)

    return run


def _contenders() -> dict[str, Contender]:
    boto3 = ROOT / ".venv-s3" / "bin" / "python"
    return {
        "phasebus hf://": _python("phasebus_hub"),
        "phasebus s3://": _python("phasebus_s3"),
        "snapshot_download (hf download)": _python("snapshot_download"),
        "curl --parallel": _curl(processes=1),
        "obstore": _python("obstore"),
        **({"boto3": _python("boto3", str(boto3))} if boto3.exists() else {}),
        _FLOOR: _python("floor"),
    }


def _rounds(
    contenders: dict[str, Contender], server: Nginx, folder: Path, sizes: dict[str, int], rounds: int
) -> dict[str, list[Run]]:
    """Let the contenders take turns; each begins with an empty folder and a disk at rest.

    Small files stay until the end: for minutes after files were deleted, ext4 looks at each of them when one is made.
    """
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for place, (name, contender) in enumerate(contenders.items()):
            there = folder / f"{number}-{place}"
            there.mkdir()
            os.sync()
            run = contender(server, there, list(sizes))
            assert all((there / file).stat().st_size == size for file, size in sizes.items()), name
            if sizes is LARGE:
                shutil.rmtree(there)
            if number:  # the first round warms the server's files up
                runs[name].append(run)
    return runs


def _against(runs: dict[str, list[Run]], ours: str, others: list[str]) -> tuple[float, str]:
    """Return how many times as long `ours` took as the fastest of `others`, a median over rounds, and which that is."""
    fastest = min(others, key=lambda name: median(run.seconds for run in runs[name]))
    return median(mine.seconds / its.seconds for mine, its in zip(runs[ours], runs[fastest], strict=True)), fastest


def _large(server: Nginx, folder: Path) -> Table:
    contenders = {**_contenders(), "4 curl processes": _curl(processes=4)}
    runs = _rounds(contenders, server, folder, LARGE, 5)
    total = sum(LARGE.values())
    peers = [name for name in runs if not name.startswith(("phasebus", "floor", "4 curl"))]
    table = Table(
        "2 GB in 4 files over loopback, medians of 5 rounds",
        ["", "GB/s", "time, to the fastest peer", "time, to the floor", "memory above idle"],
    )
    for name in runs:
        seconds = median(run.seconds for run in runs[name])
        memory = [run.memory for run in runs[name] if run.memory is not None]
        ratio = to_floor = None
        if name.startswith("phasebus"):
            value, fastest = _against(runs, name, peers)
            ratio = Number(value, "x", round(1 / 0.95, 3), f"to {fastest}")
            to_floor = Number(_against(runs, name, [_FLOOR])[0])
        used = Number(max(memory) / 1e6, " MB", 100 if ratio else None) if memory else None
        table.rows.append([name, f"{total / seconds / 1e9:.2f}", ratio, to_floor, used])
    against_processes = _against(runs, "phasebus hf://", ["4 curl processes"])[0]
    table.notes = [
        "phasebus compares what hf:// brings with its sha256 and takes a CRC of what s3:// brings; the others check nothing.",
        "Server and client share the CPUs.",
        "1.053 times the time of the fastest peer is 0.95 of its throughput. Imports are not counted, connecting is.",
        f"To 4 processes of curl, one for each file: {against_processes:.2f} times the time.",
    ]
    return table


def _killed(server: Nginx, folder: Path) -> Table:
    there = folder / "killed"
    there.mkdir()
    total = sum(LARGE.values())
    script = Path(__file__).with_name("download_contenders.py")
    command = [sys.executable, str(script), "phasebus_hub", server.url, str(there), "[]"]
    process = subprocess.Popen(command, env=_environment(server), stdout=subprocess.DEVNULL)
    wait_until(lambda: _size(there) >= total / 2, "half of the bytes are there")
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = _sent(server)
    subprocess.run(command, env=_environment(server), stdout=subprocess.DEVNULL, check=True)
    fetched = (_sent(server) - before) / total * 100
    digests = json.loads((server.root / "revision.json").read_text())["siblings"]
    for each in digests:
        with (there / each["rfilename"]).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == each["lfs"]["sha256"]
    shutil.rmtree(there)
    return Table(
        "Killed with SIGKILL at half of 2 GB, and started again",
        ["", ""],
        [["bytes the server sent the second time, of all", Number(fetched, " %", 55)]],
    )


def _small(server: Nginx, folder: Path) -> Table:
    contenders = _contenders()
    runs = _rounds(contenders, server, folder, SMALL, 7)
    peers = [name for name in runs if not name.startswith(("phasebus", "floor"))]
    table = Table(
        "200 files of 20 kB over loopback, medians of 7 rounds",
        ["", "ms", "time, to the fastest peer", "time, to the floor"],
    )
    for name in runs:
        ratio = to_floor = None
        if name.startswith("phasebus"):
            value, fastest = _against(runs, name, peers)
            ratio = Number(value, "x", 1.2, f"to {fastest}")
            to_floor = Number(_against(runs, name, [_FLOOR])[0])
        table.rows.append([name, f"{median(run.seconds for run in runs[name]) * 1000:.0f}", ratio, to_floor])
    table.notes = [
        "The floor is what Python needs for it: 8 threads that ask, read and write, know the names, and check nothing.",
        "Ours also list the files, and verify, rename and report each.",
    ]
    return table


def _size(folder: Path) -> int:
    """Return how many bytes are below `folder`; files may come and go meanwhile."""
    size = 0
    for each in folder.rglob("*"):
        try:
            size += each.stat().st_size if each.is_file() else 0
        except OSError:
            continue
    return size


def _sent(server: Nginx) -> int:
    """Return how many bytes of bodies nginx has sent, by its log."""
    log = server.root.parent / "sent.log"
    return sum(map(int, log.read_text().split()))
