"""A container of a manifest without a cluster: the same command, user, environment, mounts and read-only root, by bubblewrap.

What a kubelet would do and this does not: limits of memory and CPU, the network of pods, and names of services.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support.programs import ROOT, program

_COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "make")

_GET = """
import sys, urllib.error, urllib.request
body = sys.argv[2].encode() or None
request = urllib.request.Request(sys.argv[1], body, {"Content-Type": "application/json"})
try:
    answer = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    sys.exit(str(error))
print(answer.status, flush=True)
for line in answer:
    print(line.decode(), end="", flush=True)
"""


class PodSandbox:
    """A running container.

    Attributes:
        process: The process of bubblewrap, with the standard output and error of the container.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def main(self) -> psutil.Process:
        """The first process of the container."""
        (main,) = psutil.Process(self.process.pid).children()
        return main

    def get(self, url: str, body: str = "") -> tuple[int, str]:
        """Return the status and the text that a server in the container's network answers; 0 if it does not.

        Args:
            url: An address as seen in the container.
            body: JSON to post; "" for a GET request.
        """
        with suppress(ValueError, psutil.NoSuchProcess):  # the container has not begun, or has ended
            request = self.request(url, body)
            output, _ = request.communicate()
            if request.returncode == 0:
                status, _, text = output.partition("\n")
                return int(status), text
        return 0, ""

    def request(self, url: str, body: str = "") -> subprocess.Popen[str]:
        """Return a process that prints the status of a server's answer, and then each line of its text as it arrives.

        Args:
            url: An address as seen in the container.
            body: JSON to post; "" for a GET request.
        """
        inside = [program("nsenter", "util-linux"), f"--target={self.main.pid}", "--net"]
        command = [*inside, sys.executable, "-c", _GET, url, body]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def running_container(
    pod: Mapping[str, Any], volumes: Mapping[str, Path], variables: Mapping[str, str], log: Path
) -> Iterator[PodSandbox]:
    """Run the one container of a pod's template, as the first process of a PID namespace, in a network of its own.

    Args:
        pod: The template.
        volumes: The folders or files that stand for volumes; those without one are new folders of the container's user.
        variables: Values in place of the manifest's, and of those that the kubelet would find.
        log: The file for the container's output.
    """
    (container,) = pod["spec"]["containers"]
    user = pod["spec"]["securityContext"]
    owner = (user["runAsUser"], user["runAsGroup"])
    folder = log.parent
    made = {each["name"]: folder / each["name"] for each in pod["spec"]["volumes"]} | dict(volumes)
    (folder / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
    )  # as in an image: the container's user has no entry
    (folder / "hosts").write_text("127.0.0.1 localhost pod-0\n")  # the kubelet writes it
    message = folder / "termination-log"
    message.touch()
    os.chown(message, *owner)
    mounts: list[str | Path] = []
    for mount in container["volumeMounts"]:
        source = made[mount["name"]]
        if mount["name"] not in volumes:
            source.mkdir()
            os.chown(source, *owner)
        mounts += ["--ro-bind" if mount.get("readOnly") else "--bind", source, mount["mountPath"]]
    for name in _COMPILERS:  # the image has none
        if (path := shutil.which(name)) is not None:
            mounts += ["--ro-bind", "/dev/null", Path(path).resolve()]
    command: list[str | Path] = [
        *(program("bwrap", "bubblewrap"), *_system(folder), *_parents(mounts), *mounts),
        *("--bind", message, "/dev/termination-log", *_parents(_project()), *_project(), "--chdir", "/home/phasebus"),
        *("--remount-ro", "/etc", "--remount-ro", "/", "--clearenv", "--die-with-parent", "--new-session"),
        *("--unshare-pid", "--as-pid-1", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--hostname", "pod-0"),
        *_environment(container, variables),
        *(program("setpriv", "util-linux"), f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups"),
        *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"),
        *container["command"],
        *container.get("args", ()),
    ]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, text=True)
    try:
        yield PodSandbox(process)
    finally:
        if process.poll() is None:
            process.kill()  # and with it, by --die-with-parent, everything in its PID namespace
        process.wait()


def _system(folder: Path) -> list[str | Path]:
    """Return the options for a root that has the system's folders, and for /proc, /sys and /dev.

    Args:
        folder: The folder with the files of /etc that are not those of this machine.
    """
    made: list[str | Path] = ["--tmpfs", "/"]
    for path in sorted(Path("/").glob("*")):
        if path.is_symlink():
            made += ["--symlink", path.readlink(), path]
        elif path.name in ("usr", "bin", "lib", "lib32", "lib64", "libx32", "sbin", "opt", "sys"):
            made += ["--ro-bind", path, path]
    made += ["--tmpfs", "/etc"]  # not bound as a whole, because volumes are mounted in it
    for path in sorted(Path("/etc").iterdir()):
        source = folder / path.name if path.name in ("passwd", "hosts") else path
        made += ["--symlink", path.readlink(), path] if path.is_symlink() else ["--ro-bind", source, path]
    return [*made, "--proc", "/proc", "--dev", "/dev"]


def _parents(mounts: list[str | Path]) -> list[str | Path]:
    """Return the options for the folders above mount points: those that bubblewrap makes by itself are for root only."""
    parents = {parent for path in mounts[2::3] for parent in Path(path).parents[:-1]}
    missing = [path for path in sorted(parents) if path.parts[1] not in ("usr", "opt", "dev", "tmp")]
    return [word for path in missing if path != Path("/etc") for word in ("--perms", "0755", "--dir", path)]


def _project() -> list[str | Path]:
    """Return the options for this project and its Python, wherever they are."""
    needed = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    return [
        word for path in sorted(needed) if path.parts[1] not in ("usr", "opt") for word in ("--ro-bind", path, path)
    ]


def _environment(container: Mapping[str, Any], variables: Mapping[str, str]) -> list[str]:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    made = {"PATH": path, "HOSTNAME": "pod-0", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    for each in container["env"]:
        if each["name"] in variables:
            made[each["name"]] = variables[each["name"]]
        elif "value" in each:
            made[each["name"]] = re.sub(r"\$\((\w+)\)", lambda match: made[match[1]], each["value"])
    return [word for name, value in made.items() for word in ("--setenv", name, value)]
