"""The program of a fork of a server that stays, which is itself the fork server of one process of Ray's.

What it has forked ends with that process, because it is not among the processes that Ray knows of.
"""

from __future__ import annotations

import sys

from phasebus.initializer.engines.vllm.inside.forkserver import begin

if __name__ == "__main__":
    begin.main([int(each) for each in sys.argv[1:]], ends_forks=True)
