"""What remains of a fork server once it is released: a small program that reports how the processes it forked end.

The server executes it in place of itself, so that they are its children, and their exit codes its own to report. It runs
alone, by its path, and imports as little as possible: what it imports is memory.
"""

import os
import select
import sys


def main(owner: int, statuses: dict[int, int]) -> None:
    """Report the exit code of each process; end with the owner.

    Args:
        owner: The owner's pidfd.
        statuses: Where the exit code of each process is reported, by its process id.
    """
    waiting = select.poll()
    waiting.register(owner, select.POLLIN)
    pids = {}
    for pid in statuses:
        pids[os.pidfd_open(pid)] = pid
    for process in pids:
        waiting.register(process, select.POLLIN)
    while True:
        for descriptor, _ in waiting.poll():
            if descriptor == owner:
                os._exit(0)
            waiting.unregister(descriptor)
            os.close(descriptor)
            pid = pids.pop(descriptor)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            try:  # noqa: SIM105  # contextlib is memory
                os.write(statuses[pid], code.to_bytes(8, sys.byteorder, signed=True))  # as `channel.write_number` does
            except BrokenPipeError:
                pass
            os.close(statuses.pop(pid))


if __name__ == "__main__":
    with open("/proc/self/comm", "w") as name:  # noqa: PTH123  # pathlib is memory
        name.write("phasebus fork server")
    given = list(map(int, sys.argv[1:]))
    main(given[0], dict(zip(given[1::2], given[2::2], strict=True)))
